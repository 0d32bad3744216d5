"""The sender's side: how a layer is made from a base that is known by its signature alone.

The writer is fed the plain tar once, as it is compressed for its digest. A member whose head and content are in the
base becomes a copy under other times; one whose content is, a literal head and a copy; all else is literal. Contents
that may turn out to be copies are held until their hash is known: small ones in memory, large ones in a file. Literals
are compressed only when all is known, so that a layer of which too much is new costs next to nothing.

A recipe is `RSDR`, its version as a byte, the size of the plain tar in 8 bytes and those of the operations, plain and
compressed, in 4 each (big-endian); the operations as a zstd frame; and all literals as another, to the end.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final

from registry_spooler.archive.compression import recipe_compressor, recipe_operations
from registry_spooler.delta.operations import OPERATIONS_MAX_BYTES, Copy, Literal, Operation, choose_in_order, encode
from registry_spooler.delta.signature import EntryHasher, EntrySignature, Signature
from registry_spooler.delta.splitter import End, Head, Part, Raw, TarSplitter
from registry_spooler.oci.blob import PIECE_BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC: Final = b"RSDR\x01"
SIZES: Final = struct.Struct(">QII")
ASIDE_MAX_BYTES: Final = 512 << 20
"""What a recipe may have its reader keep in a file, because it comes in another order than in the base."""

_HELD_IN_MEMORY_BYTES: Final = 4 << 20
_HEAD_BYTES_GUESSED: Final = 512
"""What an entry takes besides its content, for bounds: most have one header."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe in its final form; `literals` is a file that its maker closes."""

    beginning: bytes
    literals: BinaryIO
    size: int

    def pieces(self) -> Iterator[bytes]:
        """Yield its `size` bytes; may be asked for again."""
        yield self.beginning
        yield from _pieces(self.literals)


class _BaseIndex:
    """A signature, to be looked up in."""

    def __init__(self, base: Signature) -> None:
        self._whole: dict[bytes, list[int]] = {}
        self._contents: dict[bytes, list[int]] = {}
        self.sizes = {entry.size for entry in base.entries}
        for index, entry in enumerate(base.entries):
            self._whole.setdefault(entry.key + entry.content_hash, []).append(index)
            if entry.size:
                self._contents.setdefault(entry.content_hash, []).append(index)

    def entry(self, entry: EntrySignature, expected: int) -> int | None:
        """Return the number of an entry that differs in times at most, or None."""
        return _nearest(self._whole.get(entry.key + entry.content_hash), expected)

    def content(self, entry: EntrySignature, expected: int) -> int | None:
        """Return the number of an entry of the same content, or None."""
        return _nearest(self._contents.get(entry.content_hash), expected) if entry.size else None


def _nearest(indexes: list[int] | None, expected: int) -> int | None:
    """Return the next that is still to come, or the last that has passed by."""
    if not indexes:
        return None
    return indexes[min(bisect_left(indexes, expected), len(indexes) - 1)]


class _Held:
    """A content that may turn out to be a copy: the first of it in memory, the rest in a file in `folder`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pieces: list[Buffer] = []
        self._bytes = 0
        self._file: BinaryIO | None = None

    def add(self, piece: memoryview) -> None:
        """Hold the next bytes. OSError."""
        self._bytes += len(piece)
        if self._bytes <= _HELD_IN_MEMORY_BYTES:
            self._pieces.append(piece)
            return
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - `close` closes it
        self._file.write(piece)

    def pieces(self) -> Iterator[Buffer]:
        """Yield all that is held."""
        yield from self._pieces
        if self._file is not None:
            yield from _pieces(self._file)

    def close(self) -> None:
        """Drop it."""
        if self._file is not None:
            self._file.close()


class RecipeWriter:
    """Writes one recipe. `literals` is an empty file, `folder` where contents are held that memory is too small for."""

    def __init__(self, base: Signature, literals: BinaryIO, folder: Path | None = None) -> None:
        self._base = _BaseIndex(base)
        self._file = literals
        self._folder = folder
        self._splitter = TarSplitter()
        self._operations: list[Operation] = []
        self._copied: list[int] = []
        """The bytes of each copy."""
        self._expected = 0
        self._head: Head | None = None
        """Of a member that may be in the base."""
        self._hasher: EntryHasher | None = None
        self._held: _Held | None = None
        self.layer_bytes = 0
        """Of the plain tar, so far."""
        self.literal_bytes = 0
        """How many of them are literal, before they are compressed."""

    def feed(self, piece: Buffer) -> None:
        """Take the next bytes of the plain tar."""
        self.layer_bytes += memoryview(piece).nbytes
        for part in self._splitter.feed(piece):
            self._take(part)

    def finish(self, output: BinaryIO) -> Recipe | None:
        """Compress the literals into an empty file; return the recipe, or None if it would ask too much of its reader.

        To be called in a thread: it takes a second for 30 MB of literals.
        """
        for part in self._splitter.finish():
            self._take(part)
        self._release()
        operations = self._ordered()
        if operations is None or len(content := encode(operations)) > OPERATIONS_MAX_BYTES:
            return None
        compressed = recipe_operations(content)
        beginning = MAGIC + SIZES.pack(self.layer_bytes, len(content), len(compressed)) + compressed
        return Recipe(beginning, output, len(beginning) + self._compress(output))

    def _compress(self, output: BinaryIO) -> int:
        """Write the compressed literals; return their size."""
        compressor, size = recipe_compressor(), 0
        for piece in _pieces(self._file):
            size += output.write(compressor.compress(piece))
        size += output.write(compressor.flush())
        output.flush()
        return size

    def close(self) -> None:
        """Drop what is held. Idempotent."""
        self._head = self._hasher = None
        if self._held is not None:
            self._held.close()
            self._held = None

    def _take(self, part: Part) -> None:
        if isinstance(part, Head):
            self._begin(part)
        elif isinstance(part, End):
            self._end(part)
        elif isinstance(part, Raw):
            self._release()
            self._literal(part.content)
        elif self._held is None or self._hasher is None:
            self._literal(part)
        else:
            self._hasher.update(part)
            self._held.add(part)

    def _begin(self, head: Head) -> None:
        if head.size not in self._base.sizes:
            self._literal(head.content)
            return
        self._head, self._hasher = head, EntryHasher(head)
        if head.size:
            self._held = _Held(self._folder)

    def _end(self, end: End) -> None:
        if self._head is None or self._hasher is None:
            self._literal(end.padding)
            return
        head, entry = self._head, self._hasher.end(end)
        times = head.times()
        index = self._base.entry(entry, self._expected) if times is not None else None
        if index is not None and times is not None:
            self._copy(Copy(index, times), entry.size + len(head.content))
        elif (index := self._base.content(entry, self._expected)) is not None:
            is_padded = not any(end.padding)
            self._literal(head.content)
            self._copy(Copy(index, is_padded=is_padded), entry.size + _HEAD_BYTES_GUESSED)
            if not is_padded:
                self._literal(end.padding)
        else:
            self._release()
            self._literal(end.padding)
        self.close()

    def _release(self) -> None:
        """Let what is held be literal."""
        if self._head is not None:
            self._literal(self._head.content)
        if self._held is not None:
            for piece in self._held.pieces():
                self._literal(piece)
        self.close()

    def _literal(self, content: Buffer) -> None:
        size = memoryview(content).nbytes
        if not size:
            return
        last = self._operations[-1] if self._operations else None
        if isinstance(last, Literal):
            self._operations[-1] = Literal(last.size + size)
        else:
            self._operations.append(Literal(size))
        self._file.write(content)
        self.literal_bytes += size

    def _copy(self, copy: Copy, size: int) -> None:
        self._expected = copy.index + 1
        self._operations.append(copy)
        self._copied.append(size)

    def _ordered(self) -> list[Operation] | None:
        """Return the operations with all aside that cannot be in order, or None if that is too much."""
        copies = [operation for operation in self._operations if isinstance(operation, Copy)]
        sized = [(copy.index, size) for copy, size in zip(copies, self._copied, strict=True)]
        chosen = choose_in_order(sized)
        aside = {index: size for (index, size), is_chosen in zip(sized, chosen, strict=True) if not is_chosen}
        if sum(aside.values()) > ASIDE_MAX_BYTES:
            return None
        is_in_order = iter(chosen)
        return [
            replace(operation, is_aside=True) if isinstance(operation, Copy) and not next(is_in_order) else operation
            for operation in self._operations
        ]


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece
