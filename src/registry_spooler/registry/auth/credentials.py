"""Logins from flags, files, the environment, a docker `config.json` or a Kubernetes secret.

Two families of rules hold at once. Docker, podman and crane: the key that is the registry, or a path of the image
under it, the longest first; keys may be written as URLs. Kubernetes: `*` stands for any part of one label of the host,
ports are equal, the key's path is a prefix of the image's; longer keys first, and every match is a candidate.
Unlike in Kubernetes a path only matches at a `/`: a login for `host/team` is not sent for `host/teammate/app`.
Credential helpers are programs, and not run.

Files are read again when they have changed, and at once after a login was refused. No secret is in any `repr`.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from registry_spooler.errors import SettingUnusable
from registry_spooler.registry.http.answer_errors import GIVE_LOGIN
from registry_spooler.registry.http.known_secrets import Credential
from registry_spooler.registry.http.trust import WatchedFile

_TOKEN_USER = "<token>"  # noqa: S105 - the user name that marks a password as an identity token


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The logins of a file, by their normalised keys: `host[:port][/path]`."""

    logins: tuple[tuple[str, Credential], ...]
    has_store: bool = False
    """One helper program keeps the logins for all registries (`credsStore`)."""
    helped: tuple[str, ...] = ()
    """The registries, by their normalised keys, that have a helper of their own (`credHelpers`)."""

    @classmethod
    def parse(cls, content: bytes) -> DockerConfig:
        """Read a file; ValueError says what is wrong without quoting any of it."""
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise ValueError("it is not valid JSON") from None
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")  # noqa: TRY004 - the content is wrong, not its type in Python
        # The old `.dockercfg` is the map itself.
        auths = document.get("auths", document if "auths" not in document and _looks_old(document) else {})
        if not isinstance(auths, dict):
            raise ValueError("its 'auths' is not a JSON object")  # noqa: TRY004 - as above
        logins = ((_normalised(key), _credential(entry)) for key, entry in auths.items())
        helpers = document.get("credHelpers")
        return cls(
            tuple((key, login) for key, login in logins if login is not None and not login.is_empty),
            has_store=bool(document.get("credsStore")),
            helped=tuple(map(_normalised, helpers)) if isinstance(helpers, dict) else (),
        )

    def candidates(self, hosts: tuple[str, ...], repository: str) -> tuple[Credential, ...]:
        """Return the logins for a repository of the registry with these spellings, best match first."""
        found = [*self._exact(hosts, repository), *self._by_pattern(hosts, repository)]
        return tuple(dict.fromkeys(found))

    def needs_helper(self, hosts: tuple[str, ...]) -> bool:
        """Return whether only a credential helper, which is not run, has the login for this registry."""
        patterns = [key.partition("/")[0] for key, _ in self.logins]
        if any(_host_matches(pattern, host) for pattern in patterns for host in hosts):
            return False
        return self.has_store or any(host in self.helped for host in hosts)

    def _exact(self, hosts: tuple[str, ...], repository: str) -> Iterator[Credential]:
        parts = [part for part in repository.split("/") if part]
        for count in range(len(parts), -1, -1):
            for host in hosts:
                wanted = "/".join([host, *parts[:count]])
                yield from (login for key, login in self.logins if key == wanted)

    def _by_pattern(self, hosts: tuple[str, ...], repository: str) -> Iterator[Credential]:
        for key, login in sorted(self.logins, key=lambda pair: pair[0], reverse=True):
            pattern, _, path = key.partition("/")
            path_fits = not path or repository == path or repository.startswith(f"{path}/")
            if path_fits and any(_host_matches(pattern, host) for host in hosts):
                yield login


def _host_matches(pattern: str, host: str) -> bool:
    pattern_name, _, pattern_port = pattern.partition(":")
    name, _, port = host.partition(":")
    labels, pattern_labels = name.split("."), pattern_name.split(".")
    return (
        pattern_port == port
        and len(labels) == len(pattern_labels)
        and all(fnmatch.fnmatchcase(label, part) for label, part in zip(labels, pattern_labels, strict=True))
    )


def _normalised(key: str) -> str:
    """Strip the scheme, the `/v1/` or `/v2/` of old API addresses, and a trailing slash."""
    rest = key.strip().partition("://")[2] or key.strip()
    host, _, path = rest.partition("/")
    path = path.strip("/")
    for version in ("v1", "v2"):
        if path == version or path.startswith(f"{version}/"):
            path = path[len(version) :].strip("/")
            break
    return f"{host.lower()}/{path}" if path else host.lower()


def _looks_old(document: dict[str, Any]) -> bool:
    return any(isinstance(entry, dict) and "auth" in entry for entry in document.values())


def _credential(entry: object) -> Credential | None:
    if not isinstance(entry, dict):
        return None
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if auth := texts.get("auth", ""):
        username, password = _decode(auth)
    identity = texts.get("identitytoken", "")
    if username == _TOKEN_USER and not identity:
        identity, password = password, ""
    return Credential(
        username=username,
        password=password,
        identity_token=identity,
        registry_token=texts.get("registrytoken", ""),
    )


def _decode(auth: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(auth.strip() + "=" * (-len(auth.strip()) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        # An entry for one registry that cannot be read is no reason to be without the others.
        return "", ""
    username, _, password = text.partition(":")
    return username, password.strip("\0")


FILE_MAX_BYTES: Final = 1 << 20
"""What a Kubernetes secret may hold at most."""


class CredentialsUnreadable(SettingUnusable):
    """A file of credentials that cannot be used."""

    sentence = "the credentials in {path!q} cannot be used: {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSettings:
    """The user's settings: values go before files, and files before the docker configuration."""

    username: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    docker_config: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read, and read again when they change."""
        return tuple(path for path in (self.password_file, self.token_file, self.docker_config) if path is not None)


class CredentialSource:
    """The settings with the present content of their files."""

    def __init__(self, settings: CredentialSettings) -> None:
        self._settings = settings
        self._files = {path: WatchedFile(path, _read) for path in settings.files}
        self._contents: dict[Path, bytes] = {}
        self._parsed: tuple[bytes, DockerConfig] | None = None
        """The docker configuration and the content that it was parsed from."""

    def __repr__(self) -> str:
        return f"<CredentialSource of {len(self._settings.files)} files>"

    async def candidates(
        self, hosts: tuple[str, ...], repository: str, *, fresh: bool = False
    ) -> tuple[Credential, ...]:
        """Return the logins to try for a repository, in order; empty: anonymous.

        `hosts` are the spellings of the registry's `host[:port]`. CredentialsUnreadable when a file cannot be used.
        """
        for path in self._settings.files:
            await self._update(path, fresh=fresh)
        return self._choose(hosts, repository)

    def _choose(self, hosts: tuple[str, ...], repository: str) -> tuple[Credential, ...]:
        settings = self._settings
        if token := settings.token or self._line(settings.token_file):
            if not token.isascii() or not token.isprintable() or " " in token:
                raise CredentialsUnreadable(str(settings.token_file or "--token"), "it is not a token")
            return (Credential(username=settings.username, registry_token=token),)
        if settings.username:
            return (
                Credential(
                    username=settings.username, password=settings.password or self._line(settings.password_file)
                ),
            )
        if settings.docker_config is None:
            return ()
        return self._parse(settings.docker_config).candidates(hosts, repository)

    def hint(self, hosts: tuple[str, ...]) -> str:
        """Return a hint for when none of the last logins was accepted; empty: no hint."""
        if self._parsed is None or not self._parsed[1].needs_helper(hosts):
            return ""
        return (
            "the docker configuration leaves this login to a credential helper, and helpers are not run; " + GIVE_LOGIN
        )

    async def troubles(self) -> tuple[CredentialsUnreadable, ...]:
        """Return what is wrong with the files, including those that others take precedence over."""
        found = []
        for path in self._settings.files:
            try:
                await self._update(path, fresh=True)
                self._parse(path) if path == self._settings.docker_config else self._line(path)
            except CredentialsUnreadable as exc:
                found.append(exc)
        return tuple(found)

    def _parse(self, path: Path) -> DockerConfig:
        content = self._contents[path]
        if self._parsed is None or self._parsed[0] is not content:
            self._parsed = None
            try:
                self._parsed = content, DockerConfig.parse(content)
            except ValueError as exc:
                raise CredentialsUnreadable(str(path), str(exc)) from exc
        return self._parsed[1]

    def _line(self, path: Path | None) -> str:
        """Return a file's text without its trailing newline."""
        try:
            return self._contents[path].decode().strip("\r\n") if path is not None else ""
        except UnicodeDecodeError as exc:
            assert path is not None
            raise CredentialsUnreadable(str(path), "it is not text") from exc

    async def _update(self, path: Path, *, fresh: bool) -> None:
        try:
            self._contents[path] = await self._files[path].content(fresh=fresh)
        except OSError as exc:
            raise CredentialsUnreadable(str(path), str(exc.strerror)) from exc


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_MAX_BYTES)
