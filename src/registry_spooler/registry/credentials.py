"""Who we are to a registry: from flags, files, the environment, a docker `config.json` or a Kubernetes secret.

Files are read again when they have changed (Kubernetes swaps mounted secrets), looked at no more than once a
second, and at once after a login was refused. No secret is in any `repr`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from registry_spooler.errors import SettingUnusable
from registry_spooler.registry.complaint import GIVE_LOGIN
from registry_spooler.registry.credential import Credential
from registry_spooler.registry.dockerconfig import DockerConfig
from registry_spooler.threads import in_thread

LOOK_AGAIN_SECONDS: Final = 1.0
FILE_MAX_BYTES: Final = 1 << 20
"""What a Kubernetes secret may hold at most."""


class CredentialsUnreadable(SettingUnusable):
    """A file of credentials that cannot be used."""

    def __str__(self) -> str:
        return f"the credentials in {self.path!r} cannot be used: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSettings:
    """What a user has set; given directly, it goes before files, and files before the docker configuration."""

    username: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    docker_config: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read, and read again."""
        return tuple(path for path in (self.password_file, self.token_file, self.docker_config) if path is not None)


class CredentialSource:
    """The settings with the present content of their files."""

    def __init__(self, settings: CredentialSettings) -> None:
        self._settings = settings
        self._contents: dict[Path, bytes] = {}
        self._signatures: dict[Path, tuple[int, ...]] = {}
        self._docker_config: DockerConfig | None = None
        """Of the present content of its file; None while that has not been understood."""
        self._looked: float | None = None

    def __repr__(self) -> str:
        return f"<CredentialSource of {len(self._settings.files)} files>"

    async def candidates(
        self, hosts: tuple[str, ...], repository: str, *, fresh: bool = False
    ) -> tuple[Credential, ...]:
        """The logins to try for a repository, in their order; empty: anonymous.

        `hosts` are the spellings of the registry's `host[:port]`. CredentialsUnreadable when a file cannot be used.
        """
        now = time.monotonic()
        if self._settings.files and (fresh or self._looked is None or now - self._looked >= LOOK_AGAIN_SECONDS):
            await in_thread(self._look)
            self._looked = now
        return self._choose(hosts, repository)

    def _choose(self, hosts: tuple[str, ...], repository: str) -> tuple[Credential, ...]:
        settings = self._settings
        if token := settings.token or self._line(settings.token_file):
            if not token.isascii() or not token.isprintable() or " " in token:
                raise CredentialsUnreadable(str(settings.token_file or "--token"), "it is no token")
            return (Credential(username=settings.username, registry_token=token),)
        if settings.username:
            return (
                Credential(
                    username=settings.username, password=settings.password or self._line(settings.password_file)
                ),
            )
        if settings.docker_config is None:
            return ()
        if self._docker_config is None:
            self._docker_config = self._parsed(settings.docker_config)
        return self._docker_config.candidates(hosts, repository)

    def hint(self, hosts: tuple[str, ...]) -> str:
        """What to say of the logins that were last asked for when none was good; empty: nothing special."""
        if self._docker_config is None or not self._docker_config.needs_helper(hosts):
            return ""
        return (
            "the docker configuration leaves this login to a credential helper, and helpers are not run; " + GIVE_LOGIN
        )

    async def troubles(self) -> tuple[CredentialsUnreadable, ...]:
        """What is wrong with the files, those included that others go before; for who asks before a login is wanted."""
        return await in_thread(lambda: tuple(self._find_troubles()))

    def _find_troubles(self) -> Iterator[CredentialsUnreadable]:
        for path in self._settings.files:
            try:
                self._look_at(path)
                self._parsed(path) if path == self._settings.docker_config else self._line(path)
            except CredentialsUnreadable as exc:
                yield exc

    def _parsed(self, path: Path) -> DockerConfig:
        try:
            return DockerConfig.parse(self._contents.get(path, b"{}"))
        except ValueError as exc:
            raise CredentialsUnreadable(str(path), str(exc)) from exc

    def _line(self, path: Path | None) -> str:
        """A file's text without the newline that editors put at its end."""
        try:
            return self._contents[path].decode().strip("\r\n") if path is not None else ""
        except UnicodeDecodeError as exc:
            assert path is not None
            raise CredentialsUnreadable(str(path), "it is no text") from exc

    def _look(self) -> None:
        for path in self._settings.files:
            self._look_at(path)

    def _look_at(self, path: Path) -> None:
        try:
            status = path.stat()
            signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if self._signatures.get(path) != signature:
                with path.open("rb") as file:
                    self._contents[path] = file.read(FILE_MAX_BYTES)
                self._signatures[path] = signature
                self._docker_config = None
        except OSError as exc:
            if path not in self._contents:
                raise CredentialsUnreadable(str(path), str(exc.strerror)) from exc
            # In the middle of a swap: what was read before is still good.
