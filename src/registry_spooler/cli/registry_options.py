"""The process's own arguments, as every user of the machine sees them in the process list.

A password on the command line stands there for as long as the process lives. Linux lets a process write over its
arguments in its memory; where that is not possible, the password stays to be seen, as it does with any program.

Every flag can be an environment variable: `--health-port` is `REGISTRY_SPOOLER_HEALTH_PORT`, and the lower-case
`REGISTRY_SPOOLER_health_port` is read too. A program may have several prefixes; the first that is set wins,
and a flag beats them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from registry_spooler.errors import InvalidAddress
from registry_spooler.registry.address import RegistryAddress
from registry_spooler.registry.auth.credentials import CredentialSettings, CredentialSource
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.vendors import UploadForm, UploadOptions
from registry_spooler.text import quoted

_MASK: Final = b"*"
_ARG_START: Final = 48
"""The field of /proc/self/stat, counted from 1: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""


def hide_arguments(secrets: Iterable[str]) -> None:
    """Write asterisks over arguments that are one of the secrets, or end in one (`--password=…`, `-p…`)."""
    wanted = [secret.encode(errors="surrogateescape") for secret in secrets]
    if not wanted:
        return
    try:
        arguments = Path("/proc/self/cmdline").read_bytes()
        masked = mask(arguments, wanted)
        if masked != arguments:
            with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
                memory.seek(_arguments_address())
                memory.write(masked)
    except (OSError, ValueError, IndexError):
        return


def mask(arguments: bytes, secrets: Iterable[bytes]) -> bytes:
    """The arguments (each ends in a zero byte) with the secrets in them masked, of the same length."""
    masked = arguments.split(b"\0")
    for index, argument in enumerate(masked):
        for secret in secrets:
            if argument == secret or (argument.startswith(b"-") and argument.endswith(secret)):
                masked[index] = argument[: len(argument) - len(secret)] + _MASK * len(secret)
    return b"\0".join(masked)


def _arguments_address() -> int:
    # The program's name is in parentheses and may hold anything, so the fields are counted from its end.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[_ARG_START - 3])


C = TypeVar("C", bound=Callable[..., Any])

_SIZE: Final = re.compile(r"(\d+)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
CHUNK_LEAST_BYTES: Final = 64 << 10
CHUNK_MOST_BYTES: Final = 1 << 30
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class ByteSize(click.ParamType[int]):
    """A number of bytes: `16777216`, `16MiB`, `16Mi` or `16M` (binary), or `16MB` (decimal)."""

    name = "size"

    def __init__(self, least_bytes: int, most_bytes: int, between: str) -> None:
        self._least_bytes, self._most_bytes, self._between = least_bytes, most_bytes, between

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes; a usage error when it is none."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            raise click.BadParameter(f"{quoted(str(value))} is not a size such as 16MiB", ctx, param)
        unit = match[2].lower()
        is_decimal = bool(unit) and not match[3] and str(value).strip()[-1:].lower() == "b"
        base = 1000 if is_decimal else 1024
        size = int(match[1]) * int(base ** _POWERS[unit])
        if not self._least_bytes <= size <= self._most_bytes:
            raise click.BadParameter(f"{quoted(str(value))} is not between {self._between}", ctx, param)
        return size


CHUNK_SIZE: Final = ByteSize(CHUNK_LEAST_BYTES, CHUNK_MOST_BYTES, "64KiB and 1GiB")
SPOOL_SIZE: Final = ByteSize(1 << 20, 1 << 50, "1MiB and 1024TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """Which registry, and how to get in. Secrets are never shown by `repr`."""

    registry: str = "localhost:5000"
    certificate: Path | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    docker_config: Path | None = None
    chunk_size_bytes: int | None = None
    """None: what suits the registry's host; 16 MiB when nothing is known about it."""
    upload_form: UploadForm = UploadForm.AUTO
    tries: int = 5
    """Of one request, within seconds; whoever has more patience begins where this ends."""
    allow_private_targets: bool = False
    """May a registry with a public name send us to private addresses (token server, storage)?"""
    pull_host: str = ""
    """Where the nodes reach the registry, as an image name begins; empty when nobody said so."""

    def client(self, *, pushes: bool = True) -> RegistryClient:
        """A client of that registry, not yet opened; InvalidAddress when the address is none."""
        return RegistryClient(
            self.registry,
            certificate=self.certificate,
            credentials=CredentialSource(self._credentials),
            pushes=pushes,
            upload_options=UploadOptions(form=self.upload_form, chunk_size_bytes=self.chunk_size_bytes),
            retry=RetryPolicy(tries=self.tries),
            allow_private_targets=self.allow_private_targets,
            pull_host=self.pull_host,
        )

    @property
    def _credentials(self) -> CredentialSettings:
        return CredentialSettings(
            username=self.username or "",
            password=self.password or "",
            password_file=self.password_file,
            token=self.token or "",
            token_file=self.token_file,
            docker_config=self.docker_config,
        )

    @classmethod
    def take(cls, values: dict[str, Any]) -> RegistrySettings:
        """Take these settings out of a command's keyword arguments, and leave the rest.

        Secrets that were given as arguments are wiped from the process title. A usage error says which settings do
        not go together.
        """
        names = cls.__dataclass_fields__
        taken = {name: values.pop(name) for name in tuple(values) if name in names}
        taken |= dict.fromkeys(_outvoted(_flags(taken)))
        settings = cls(**{**taken, "upload_form": UploadForm(taken["upload_form"])})
        hide_arguments(secret for secret in (settings.password, settings.token) if secret)
        settings.check()
        return settings

    def check(self) -> None:
        """A usage error when the settings cannot be meant."""
        if (self.password or self.password_file) and not self.username:
            raise click.UsageError("a password needs a user name (--username)")
        if self.username and not (self.password or self.password_file or self.token or self.token_file):
            raise click.UsageError("a user name needs a password (--password-file or --password)")
        try:
            RegistryAddress.parse(self.registry, has_certificate=self.certificate is not None)
        except InvalidAddress as exc:
            raise click.BadParameter(str(exc), param_hint="--registry") from exc
        if self.pull_host and not _PULL_HOST.fullmatch(self.pull_host):
            raise click.BadParameter(
                f"{quoted(self.pull_host)} does not begin an image's name; write HOST[:PORT]", param_hint="--pull-host"
            )


_PULL_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?")
"""As https://github.com/distribution/reference/blob/main/reference.go has the domain of a name."""
_LOGINS: Final = (("token", "token_file"), ("username", "password", "password_file"), ("docker_config",))
"""The ways of logging in; of several that are given, the first one goes."""


def _flags(names: Iterable[str]) -> frozenset[str]:
    """Which settings stand on the command line, before or behind a command's name."""
    found: set[str] = set()
    context = click.get_current_context(silent=True)
    while context is not None:
        found |= {name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
        context = context.parent
    return frozenset(found)


def _outvoted(flags: frozenset[str]) -> Iterator[str]:
    """What the environment says of logins, and does not hold since flags beat it; a usage error for too many flags."""
    token, password, docker = (flags.intersection(login) for login in _LOGINS)
    if token and password:
        raise click.UsageError("a token and a user name with a password do not go together; give one of them")
    if token or password or docker:
        for login in _LOGINS:
            yield from () if flags.intersection(login) else login
    yield from (name for name in ("token", "password") if f"{name}_file" in flags and name not in flags)


def environment(prefixes: Iterable[str], name: str) -> list[str]:
    """The variables that stand for an option: `PREFIX_SOME_OPTION` and `PREFIX_some_option`, prefix by prefix."""
    return [f"{prefix}_{spelled}" for prefix in prefixes for spelled in (name.upper(), name.lower())]


def option(prefixes: Iterable[str], *declarations: str, **attributes: Any) -> Callable[[C], C]:
    """`click.option` with the environment variables of its long name."""
    long_name = next(text for text in declarations if text.startswith("--")).partition("/")[0]
    variables = environment(prefixes, long_name.removeprefix("--").replace("-", "_"))
    return click.option(*declarations, envvar=variables, show_envvar=False, **attributes)


def registry_options(*prefixes: str) -> Callable[[C], C]:
    """Add every option of `RegistrySettings` to a command."""
    file = click.Path(path_type=Path, dir_okay=False)
    options = [
        option(prefixes, "-r", "--registry", default="localhost:5000", show_default=True, metavar="HOST[:PORT]|URL",
               help="The registry. Without a scheme: http for loopback hosts, https for all else."),
        option(prefixes, "-c", "--certificate", type=file, help="PEM file of the CAs to trust; implies https."),
        option(prefixes, "-u", "--username", help="User name for the registry."),
        option(prefixes, "-p", "--password", help="Password; better in a file or the environment."),
        option(prefixes, "--password-file", type=file, help="File that holds the password; re-read when it changes."),
        option(prefixes, "-t", "--token",
               help="Bearer token; goes before a user name; better in a file or the environment."),
        option(prefixes, "--token-file", type=file, help="File that holds the token; re-read when it changes."),
        option(prefixes, "--docker-config", type=file,
               help="A docker config.json or a Kubernetes .dockerconfigjson, for when neither token nor user name is "
               "given. Credential helpers are not run."),
        option(prefixes, "--chunk-size", "chunk_size_bytes", type=CHUNK_SIZE, metavar="SIZE",
               help="Bytes of one upload request, fewer when memory is short; what suits the registry, mostly 16MiB, "
               "when not given."),
        option(prefixes, "--upload-form", type=click.Choice([form.value for form in UploadForm]),
               default=UploadForm.AUTO.value, show_default=True,
               help="Ranged chunks, or one stream per blob, for registries that take no ranges."),
        option(prefixes, "--tries", type=click.IntRange(1, 100), default=5, show_default=True,
               help="How often one request is sent before the whole job is deferred."),
        option(prefixes, "--allow-private-targets", is_flag=True,
               help="Let a registry with a public name send us to private addresses (token server, storage)."),
        option(prefixes, "--pull-host", default="", metavar="HOST[:PORT]",
               help="Where nodes reach the registry; receipts then say what to write behind `image:`."),
    ]  # fmt: skip

    def decorate(command: C) -> C:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate


__all__ = ["SPOOL_SIZE", "RegistrySettings", "environment", "option", "registry_options"]
