"""The one error tree of the project.

Every error of ours is a `SpoolerError`. It carries fields, and its `str()` is one sentence that a user can
act on. The spool asks for `temporary` and nothing else: true means that the file is not at fault, so that the same
work may succeed later with the same file. Loops that repeat a single request ask for `transient`.

Errors of other libraries are translated once, in the module that wraps the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_spooler.text import quoted, shortened

if TYPE_CHECKING:
    from registry_spooler.oci.digest import Digest


class SpoolerError(Exception):
    """Base of all errors that a user may see."""

    temporary: bool = False
    """May the same work succeed later, with the same file?"""

    retry_after_seconds: float | None = None
    """What the other side asked for, when it asked."""

    @property
    def transient(self) -> bool:
        """Return whether the trouble may pass within seconds, with nobody doing anything about it."""
        return self.temporary

    @property
    def detail(self) -> str:
        """More for the curious than the sentence says: the chain of causes, without secrets."""
        causes: list[str] = []
        cause = self.__cause__
        while cause is not None and len(causes) < 5:
            causes.append(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__)
            cause = cause.__cause__
        return "; ".join(causes)


class InvalidReference(SpoolerError):
    """A name that is no reference under the OCI grammar."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text, reason)
        self.text = text
        self.reason = reason

    def __str__(self) -> str:
        return f"{quoted(self.text)} does not name an image: {self.reason}"


class InvalidAddress(SpoolerError):
    """What should say where a registry is, and does not."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text, reason)
        self.text = text
        self.reason = reason

    def __str__(self) -> str:
        return f"{quoted(self.text)} is no address of a registry: {self.reason}"


class InvalidFileName(SpoolerError):
    """A spool file's name that does not follow the rule for names."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"the file name {quoted(self.name)} does not name an image: {self.reason}"


class ArchiveError(SpoolerError):
    """An archive that cannot be pushed as it is; its bytes or their meaning are wrong.

    `where` names the member or the byte position, when there is one.
    """

    incomplete: bool = False
    """Does it read like a file that is still being written?"""

    def __init__(self, reason: str, *, where: str | None = None) -> None:
        super().__init__(reason, where)
        self.reason = reason
        self.where = where

    def __str__(self) -> str:
        return f"{shortened(self.where)}: {self.reason}" if self.where else self.reason


class ArchiveTruncated(ArchiveError):
    """The archive ends before it should."""

    incomplete = True

    def __str__(self) -> str:
        return f"{self.reason} ({shortened(self.where)})" if self.where else self.reason


class SourceChanged(SpoolerError):
    """The file changed while it was read: what was read is no state that it ever had."""

    temporary = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{quoted(self.name)} changed while it was being read"


class SpoolerDied(SpoolerError):
    """A file that the spooler does not survive: it has died over it again and again, the last time over it alone."""

    def __init__(self, deaths: int) -> None:
        super().__init__(deaths)
        self.deaths = deaths

    def __str__(self) -> str:
        return (
            f"the spooler was killed {self.deaths} times while it worked on this file, the last time while it did "
            "nothing else; the file is not tried again, so that others are pushed"
        )


class SourceUnreadable(SpoolerError):
    """The operating system does not give us the file's bytes; it may again later."""

    temporary = True

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{quoted(self.name)} cannot be read: {self.reason}"


class SettingUnusable(SpoolerError):
    """A file that the settings name cannot be read, or not be understood; it may be put in its place at any time."""

    temporary = True
    transient = False

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"the file {quoted(self.path)} cannot be used: {self.reason}"


class RegistryError(SpoolerError):
    """Something between us and the registry, or the registry's own answer."""


class RegistryUnreachable(RegistryError):
    """No answer: connection refused, reset, timed out, name not resolved, TLS not agreed on."""

    temporary = True

    def __init__(self, registry: str, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(registry, reason)
        self.registry = registry
        self.reason = reason
        self.timed_out = timed_out
        """Was it waited for until a deadline? Then each try costs as much again."""

    def __str__(self) -> str:
        return f"the registry {self.registry} cannot be reached: {self.reason}"


class RegistryAnswer(RegistryError):
    """An answer that is not the one asked for.

    `url` is redacted before it gets here. `code` and `message` are the first entry of the
    registry's `errors` list (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes).
    """

    _who = "the registry"
    _TRANSIENT = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})
    _NOT_OF_THE_REQUEST = frozenset({407, 421, 423, 426})
    """They speak of a proxy, of the connection or of a lock, not of what was asked."""

    def __init__(
        self,
        method: str,
        url: str,
        status: int,
        *,
        code: str = "",
        message: str = "",
        hint: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(method, url, status)
        self.method = method
        self.url = url
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after_seconds = retry_after_seconds
        self.temporary = not 400 <= status < 500 or status in self._TRANSIENT | self._NOT_OF_THE_REQUEST

    @property
    def transient(self) -> bool:
        """Return whether the status is one that passes by itself."""
        return self.temporary and self.status in self._TRANSIENT

    def __str__(self) -> str:
        said = ": ".join(part for part in (self.code, self.message) if part)
        sentence = f"{self._who} answered {self.status} to {self.method} {self.url}"
        if said:
            sentence += f" ({said})"
        return f"{sentence}; {self.hint}" if self.hint else sentence


class NotFound(RegistryAnswer):
    """The registry holds no such repository, manifest, tag or blob."""


class AccessDenied(RegistryAnswer):
    """The registry wants other credentials (401 after logging in), or refuses these (403).

    Temporary when it is the login that is refused: it can be corrected, and the file is as good as it was. Not
    temporary when the registry takes the login and refuses what was asked for.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.temporary = self.status == 401


class RefusedElsewhere(RegistryAnswer):
    """A server to which the registry sent us (its storage, mostly) refuses; it got no login of ours, and needs none.

    Temporary: neither the file nor the login is at fault.
    """

    _who = "another server"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.temporary = True

    def __str__(self) -> str:
        return f"{super().__str__()}; the registry sent us to that server, and has to see to it"


class DeletesDisabled(RegistryAnswer):
    """The registry is set up not to delete."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()}; deleting is switched off there (docker-registry: set storage.delete.enabled, or "
            "REGISTRY_STORAGE_DELETE_ENABLED=true)"
        )


class RegistryProtocolError(RegistryError):
    """What answers is no registry (a web page, a redirect in a circle), or does not follow the protocol.

    Temporary, as no file can be blamed for it; not transient, as somebody has to put it right.
    """

    temporary = True
    transient = False

    def __init__(self, registry: str, reason: str) -> None:
        super().__init__(registry, reason)
        self.registry = registry
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.registry} does not answer as a registry does: {self.reason}"


class UploadLost(RegistryError):
    """An upload session that cannot go on; the blob has to be sent again from its first byte."""

    temporary = True

    def __init__(self, repository: str, reason: str) -> None:
        super().__init__(repository, reason)
        self.repository = repository
        self.reason = reason

    def __str__(self) -> str:
        return f"an upload to {self.repository} was lost: {self.reason}"


class DigestNotSupported(RegistryError):
    """The registry keeps no blobs or manifests under digests of this algorithm: the image cannot be stored there."""

    def __init__(self, registry: str, digest: Digest) -> None:
        super().__init__(registry, digest)
        self.registry = registry
        self.digest = digest

    def __str__(self) -> str:
        return (
            f"the registry {self.registry} does not store content under {self.digest.algorithm} digests, and the image "
            f"needs it to ({self.digest})"
        )


class DeletionNotConfirmed(RegistryError):
    """The registry said that it deleted a tag or manifest, and goes on answering for it.

    Temporary: the registry may see its own deletion late, and the next try may succeed; the file that asks for it is
    not at fault.
    """

    temporary = True

    def __init__(self, reference: str, answered: Digest) -> None:
        super().__init__(reference, answered)
        self.reference = reference
        self.answered = answered

    def __str__(self) -> str:
        return f"the registry says that it deleted {self.reference}, and still answers for it with {self.answered}"


class TagNotConfirmed(RegistryError):
    """The registry took a manifest and then answered the tag with something else."""

    temporary = True

    def __init__(self, reference: str, pushed: Digest, answered: Digest | None) -> None:
        super().__init__(reference, pushed, answered)
        self.reference = reference
        self.pushed = pushed
        self.answered = answered

    def __str__(self) -> str:
        answered = self.answered if self.answered is not None else "nothing"
        return f"the registry took {self.pushed} for {self.reference} and answers the tag with {answered}"
