"""What a layer holds, told shortly: for each member a key for its head, and its content's size and hash.

Of a content, 16 bytes of its SHA-256 are kept; of a head, 6 bytes of the SHA-256 of its normal form, together with the
padding behind the content. That is some 25 bytes a member. Chance will not make two of them meet, and if malice does,
what is rebuilt has another digest and is not kept.

The encoding, version 1: `RSDS`, the version as a byte; then as variable-length numbers the size of the plain tar, the
count of entries, and the size of each entry's content; then the heads' keys, 6 bytes each; then 16 bytes for each
entry whose content has a size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from registry_spooler.delta import varint
from registry_spooler.delta.splitter import End, Head, Part, Raw, TarSplitter
from registry_spooler.delta.varint import VarintReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from registry_spooler.errors import DeltaError

ENTRIES_MAX: Final = 250_000
"""Of one layer; what comes after them is not matched. A distribution's root has some 50,000."""
LAYER_MAX_BYTES: Final = 1 << 40
SIGNATURE_MAX_BYTES: Final = ENTRIES_MAX * 32
"""What its reader takes."""
KEY_BYTES: Final = 6
HASH_BYTES: Final = 16

_MAGIC: Final = b"RSDS\x01"
_WHAT: Final = "the signature"


@dataclass(frozen=True, slots=True)
class EntrySignature:
    """One member."""

    key: bytes
    """Of the normal form of its head, and of its padding."""
    size: int
    """Bytes of content that are not in the head."""
    content_hash: bytes
    """Empty when there is no such content."""


class EntryHasher:
    """Makes the signature of one member while it passes by."""

    def __init__(self, head: Head) -> None:
        self._key = hashlib.sha256(head.normal_form())
        self._content = hashlib.sha256()
        self._size = 0

    def update(self, content: Buffer) -> None:
        """Add content."""
        self._content.update(content)
        self._size += memoryview(content).nbytes

    def end(self, end: End) -> EntrySignature:
        """Return what it came to."""
        self._key.update(end.padding)
        content_hash = self._content.digest()[:HASH_BYTES] if self._size else b""
        return EntrySignature(self._key.digest()[:KEY_BYTES], self._size, content_hash)


@dataclass(slots=True)
class Signature:
    """A whole layer's; `layer_bytes` is the size of its plain tar."""

    layer_bytes: int = 0
    entries: list[EntrySignature] = field(default_factory=list)

    def encode(self) -> bytes:
        """Write it down; see the module."""
        out = bytearray(_MAGIC)
        varint.append(out, self.layer_bytes)
        varint.append(out, len(self.entries))
        for entry in self.entries:
            varint.append(out, entry.size)
        return bytes(out) + b"".join([e.key for e in self.entries] + [e.content_hash for e in self.entries])

    @classmethod
    def decode(cls, content: bytes) -> Signature:
        """Read what another wrote; DeltaError when it does not add up."""
        reader = VarintReader(content, _WHAT)
        if len(content) > SIGNATURE_MAX_BYTES or reader.take(len(_MAGIC)) != _MAGIC:
            raise _unreadable(reader)
        layer_bytes = reader.number(LAYER_MAX_BYTES, "bytes in a layer")
        count = reader.number(min(ENTRIES_MAX, reader.left), "entries")
        sizes = [reader.number(layer_bytes, "bytes in a file") for _ in range(count)]
        if sum(sizes) > layer_bytes:
            raise reader.error("its files have more bytes than its layer")
        keys = [reader.take(KEY_BYTES) for _ in sizes]
        hashes = [reader.take(HASH_BYTES) if size else b"" for size in sizes]
        if reader.left:
            raise reader.error("there are bytes after its end")
        return cls(layer_bytes, list(map(EntrySignature, keys, sizes, hashes)))


def _unreadable(reader: VarintReader) -> DeltaError:
    return reader.error("it is of another version, or no signature")


class SignatureBuilder:
    """Makes a layer's signature while its plain tar passes by."""

    def __init__(self) -> None:
        self._splitter = TarSplitter()
        self._signature = Signature()
        self._hasher: EntryHasher | None = None

    def feed(self, piece: Buffer) -> None:
        """Take the next bytes of the plain tar."""
        self._signature.layer_bytes += memoryview(piece).nbytes
        for part in self._splitter.feed(piece):
            self._take(part)

    def finish(self) -> Signature:
        """Return the signature of all that was fed; a member that is cut off is not in it."""
        return self._signature

    def _take(self, part: Part) -> None:
        if isinstance(part, Head):
            is_full = len(self._signature.entries) == ENTRIES_MAX
            self._hasher = None if is_full else EntryHasher(part)
        elif self._hasher is None or isinstance(part, Raw):
            self._hasher = None
        elif isinstance(part, End):
            self._signature.entries.append(self._hasher.end(part))
            self._hasher = None
        else:
            self._hasher.update(part)


def signature_of(pieces: Iterable[Buffer]) -> Signature:
    """Return the signature of a plain tar that can be read piece by piece."""
    builder = SignatureBuilder()
    for piece in pieces:
        builder.feed(piece)
    return builder.finish()
