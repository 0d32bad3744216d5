"""The one error tree of the project.

Every error of ours is a `SpoolerError`. A class declares its fields as a dataclass does, and the sentence they make: a
user can act on it. The spool asks for `temporary` and nothing else: true means that the file is not at fault, so that
the same work may succeed later with the same file. Loops that repeat a single request ask for `transient`.

Errors of other libraries are translated once, in the module that wraps the library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from string import Formatter
from typing import TYPE_CHECKING, Any, ClassVar, Final, dataclass_transform

from registry_spooler.text import quoted, shortened

if TYPE_CHECKING:
    from registry_spooler.oci.digest import Digest


class _Sentences(Formatter):
    """Fills a sentence in from the attributes of its error; `{name!q}` stands for the text in quotation marks."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return getattr(args[0], str(key))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return quoted(str(value)) if conversion == "q" else super().convert_field(value, conversion)


_SENTENCES = _Sentences()


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class SpoolerError(Exception):
    """Base of all errors that a user may see. Its annotated attributes are the arguments of the constructor."""

    sentence: ClassVar[str] = ""
    """What `str()` says, with the fields in braces (see `_Sentences`)."""

    temporary: bool = False
    """May the same work succeed later, with the same file?"""

    retry_after_seconds: float | None = None
    """What the other side asked for, when it asked."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)

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

    def _sentence(self) -> str:
        """Return what `str()` says; for sentences that depend on more than the values."""
        return _SENTENCES.vformat(self.sentence, (self,), {})

    def __str__(self) -> str:
        return self._sentence()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # `args` does not hold what was given by keyword.
        return _empty, (type(self),), self.__dict__


def _empty(kind: type[SpoolerError]) -> SpoolerError:
    return kind.__new__(kind)


class InvalidReference(SpoolerError):
    """A name that is no reference under the OCI grammar."""

    text: str
    reason: str
    sentence = "{text!q} does not name an image: {reason}"


class InvalidAddress(SpoolerError):
    """What should say where a registry is, and does not."""

    text: str
    reason: str
    sentence = "{text!q} is not the address of a registry: {reason}"


class InvalidFileName(SpoolerError):
    """A spool file's name that does not follow the rule for names."""

    name: str
    reason: str
    sentence = "the file name {name!q} does not name an image: {reason}"


class ArchiveError(SpoolerError):
    """An archive that cannot be pushed as it is; its bytes or their meaning are wrong.

    `where` names the member or the byte position, when there is one.
    """

    incomplete: ClassVar[bool] = False
    """Does it read like a file that is still being written?"""

    reason: str
    _: KW_ONLY
    where: str | None = None

    def _sentence(self) -> str:
        return f"{shortened(self.where)}: {self.reason}" if self.where else self.reason


class ArchiveTruncated(ArchiveError):
    """The archive ends before it should."""

    incomplete = True

    def _sentence(self) -> str:
        return f"{self.reason} ({shortened(self.where)})" if self.where else self.reason


class DeltaError(SpoolerError):
    """A delta, or a layer's signature, that cannot be used; the layer it stands for can be sent whole."""

    reason: str
    sentence = "the delta cannot be used: {reason}"


class SourceChanged(SpoolerError):
    """The file changed while it was read: what was read is no state that it ever had."""

    name: str
    temporary = True
    sentence = "{name!q} changed while it was being read"


class SpoolerDied(SpoolerError):
    """A file that the spooler does not survive: it has died over it again and again, the last time over it alone."""

    deaths: int
    sentence = (
        "the spooler was killed {deaths} times while it worked on this file, the last time while it did "
        "nothing else; the file is not tried again, so that others are pushed"
    )


class SourceUnreadable(SpoolerError):
    """The operating system does not give us the file's bytes; it may again later."""

    name: str
    reason: str
    temporary = True
    sentence = "{name!q} cannot be read: {reason}"


class SettingUnusable(SpoolerError):
    """A file that the settings name cannot be read, or not be understood; it may be put in its place at any time."""

    path: str
    reason: str
    temporary = True
    transient = False
    sentence = "the file {path!q} cannot be used: {reason}"


class RegistryError(SpoolerError):
    """Something between us and the registry, or the registry's own answer."""


class RegistryUnreachable(RegistryError):
    """No answer: connection refused, reset, timed out, name not resolved, TLS not agreed on."""

    registry: str
    reason: str
    _: KW_ONLY
    timed_out: bool = False
    """Was it waited for until a deadline? Then each try costs as much again."""

    temporary = True
    sentence = "the registry {registry} cannot be reached: {reason}"


TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_NOT_OF_THE_REQUEST = frozenset({407, 421, 423, 426})
"""They speak of a proxy, of the connection or of a lock, not of what was asked."""


class RegistryAnswer(RegistryError):
    """An answer that is not the one asked for.

    `url` is redacted before it gets here. `code` and `message` are the first entry of the
    registry's `errors` list (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes).
    """

    method: str
    url: str
    status: int
    _: KW_ONLY
    code: str = ""
    message: str = ""
    hint: str = ""
    retry_after_seconds: float | None = None

    _server: ClassVar[str] = "the registry"

    def __post_init__(self) -> None:
        self.temporary = not 400 <= self.status < 500 or self.status in TRANSIENT_STATUSES | _NOT_OF_THE_REQUEST

    @property
    def transient(self) -> bool:
        """Return whether the status is one that passes by itself."""
        return self.temporary and self.status in TRANSIENT_STATUSES

    def _sentence(self) -> str:
        sentence = f"{self._server} answered {self.status} to {self.method} {self.url}"
        if self.code or self.message:
            sentence += f" ({': '.join(filter(None, (self.code, self.message)))})"
        return f"{sentence}; {self.hint}" if self.hint else sentence


class NotFound(RegistryAnswer):
    """The registry holds no such repository, manifest, tag or blob."""


class AccessDenied(RegistryAnswer):
    """The registry wants other credentials (401 after logging in), or refuses these (403).

    Temporary when it is the login that is refused: it can be corrected, and the file is as good as it was. Not
    temporary when the registry takes the login and refuses what was asked for.
    """

    def __post_init__(self) -> None:
        self.temporary = self.status == 401


class RefusedElsewhere(RegistryAnswer):
    """A server to which the registry sent us (its storage, mostly) refuses; it got no login of ours, and needs none.

    Temporary: neither the file nor the login is at fault.
    """

    _server = "another server"

    def __post_init__(self) -> None:
        self.temporary = True

    def _sentence(self) -> str:
        return f"{super()._sentence()}; the registry sent us to that server, and has to see to it"


class DeletesDisabled(RegistryAnswer):
    """The registry is set up not to delete."""

    def _sentence(self) -> str:
        return (
            f"{super()._sentence()}; deleting is switched off there (docker-registry: set storage.delete.enabled, or "
            "REGISTRY_STORAGE_DELETE_ENABLED=true)"
        )


class RegistryProtocolError(RegistryError):
    """What answers is no registry (a web page, a redirect in a circle), or does not follow the protocol.

    Temporary, as no file can be blamed for it; not transient, as somebody has to put it right.
    """

    registry: str
    reason: str
    temporary = True
    transient = False
    sentence = "{registry} does not answer as a registry does: {reason}"


class UploadLost(RegistryError):
    """An upload session that cannot go on; the blob has to be sent again from its first byte."""

    repository: str
    reason: str
    temporary = True
    sentence = "an upload to {repository} was lost: {reason}"


class DigestNotSupported(RegistryError):
    """The registry keeps no blobs or manifests under digests of this algorithm: the image cannot be stored there."""

    registry: str
    digest: Digest
    sentence = (
        "the registry {registry} does not store content under {digest.algorithm} digests, and the image needs it to "
        "({digest})"
    )


class DeletionNotConfirmed(RegistryError):
    """The registry said that it deleted a tag or manifest, and goes on answering for it.

    Temporary: the registry may see its own deletion late, and the next try may succeed; the file that asks for it is
    not at fault.
    """

    reference: str
    answered: Digest
    temporary = True
    sentence = "the registry says that it deleted {reference}, and still answers for it with {answered}"


class TagNotConfirmed(RegistryError):
    """The registry took a manifest and then answered the tag with something else."""

    reference: str
    pushed: Digest
    answered: Digest | None
    temporary = True

    def _sentence(self) -> str:
        answered = "nothing" if self.answered is None else self.answered
        return f"the registry took {self.pushed} for {self.reference} and answers the tag with {answered}"
