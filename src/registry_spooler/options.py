"""The registry's settings as command-line options, the same for every program, with their environment variables.

Every flag can be an environment variable: `--health-port` is `REGISTRY_SPOOLER_HEALTH_PORT`, and the lower-case
`REGISTRY_SPOOLER_health_port` is read too. A program may have several prefixes; the first that is set wins,
and a flag beats them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from registry_spooler.registry import RegistryClient, UploadForm, UploadOptions

C = TypeVar("C", bound=Callable[..., Any])

_SIZE: Final = re.compile(r"(\d+)\s*([kmg]?)(i?)b?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3}


class ByteSize(click.ParamType[int]):
    """A number of bytes: `16777216`, `16MiB`, `16M` (binary) or `16MB` (decimal)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes; a usage error when it is none."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            raise click.BadParameter(f"{value!r} is not a size such as 16MiB", ctx, param)
        unit = match[2].lower()
        is_decimal = bool(unit) and not match[3] and str(value).strip()[-1:].lower() == "b"
        base = 1000 if is_decimal else 1024
        return int(match[1]) * int(base ** _POWERS[unit])


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
    upload_form: UploadForm = UploadForm.AUTO

    def client(self, *, pushes: bool = True) -> RegistryClient:
        """A client of that registry, not yet opened; InvalidReference when the address is none."""
        upload = UploadOptions(form=self.upload_form, chunk_size_bytes=self.chunk_size_bytes)
        return RegistryClient(self.registry, certificate=self.certificate, pushes=pushes, upload_options=upload)

    @classmethod
    def take(cls, values: dict[str, Any]) -> RegistrySettings:
        """Take these settings out of a command's keyword arguments, and leave the rest."""
        names = cls.__dataclass_fields__
        taken = {name: values.pop(name) for name in tuple(values) if name in names}
        return cls(**{**taken, "upload_form": UploadForm(taken["upload_form"])})


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
        option(prefixes, "-t", "--token", help="Bearer token; better in a file or the environment."),
        option(prefixes, "--token-file", type=file, help="File that holds the token; re-read when it changes."),
        option(prefixes, "--docker-config", type=file, help="A docker config.json or a Kubernetes .dockerconfigjson."),
        option(prefixes, "--chunk-size", "chunk_size_bytes", type=ByteSize(), metavar="SIZE",
               help="Bytes of one upload request; what suits the registry, mostly 16MiB, when not given."),
        option(prefixes, "--upload-form", type=click.Choice([form.value for form in UploadForm]),
               default=UploadForm.AUTO.value, show_default=True,
               help="Ranged chunks, or one stream per blob, for registries that take no ranges."),
    ]  # fmt: skip

    def decorate(command: C) -> C:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate


def has_secret_argument(arguments: Iterable[str]) -> bool:
    """Does the command line itself hold a password or a token, for every process on the machine to see?"""
    return any(re.match(r"-[pt]|--(password|token)(=|$)", text) for text in arguments)


__all__ = ["ByteSize", "RegistrySettings", "environment", "has_secret_argument", "option", "registry_options"]
