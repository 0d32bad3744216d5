"""The far end's side: a layer's plain tar, made from its recipe and the base.

Everything is pulled, one piece at a time: the layer is as long as its recipe declares, or the last piece is a
DeltaError. Memory is bounded whatever the recipe says: operations are at most OPERATIONS_MAX_BYTES, literals come out
of their compressor piece by piece, and what is copied out of order goes through a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from registry_spooler.archive.compression import RECIPE_WINDOW_BYTES, Compression, Inflater
from registry_spooler.archive.tar_header import padded
from registry_spooler.delta.operations import OPERATIONS_MAX_BYTES, Copy, Literal, decode
from registry_spooler.delta.recipe import ASIDE_MAX_BYTES, MAGIC, SIZES
from registry_spooler.delta.signature import LAYER_MAX_BYTES
from registry_spooler.delta.splitter import End, Head, Raw, split
from registry_spooler.errors import ArchiveError, DeltaError

if TYPE_CHECKING:
    from typing_extensions import Buffer

OpenBase = Callable[[], Iterable["Buffer"]]
"""Gives the base's plain tar from its beginning, piece by piece; called twice when something is aside."""

_READ_BYTES: Final = 64 << 10
_OUTPUT_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class _Recipe:
    layer_bytes: int
    operations: bytes
    literals: _Inflated


class _Inflated:
    """One zstd stream from a file, `left` bytes of it, inflated as it is asked for."""

    def __init__(self, file: BinaryIO, left: int | None = None) -> None:
        self._file = file
        self._left = left
        self._inflater = Inflater(Compression.ZSTD, name="recipe", window_max_bytes=RECIPE_WINDOW_BYTES)
        self._is_read = False

    def take(self, count: int) -> Iterator[bytes]:
        """Yield the next `count` bytes; DeltaError when there are less."""
        while count:
            piece = self._next(min(count, _OUTPUT_BYTES))
            count -= len(piece)
            yield piece

    def _next(self, max_bytes: int) -> bytes:
        while True:
            try:
                piece = self._inflater.inflate(self._read(), max_bytes)
            except ArchiveError as exc:
                raise DeltaError(str(exc)) from exc
            if piece:
                return piece
            if self._is_read and self._inflater.needs_input:
                raise DeltaError("the recipe is cut off")

    def _read(self) -> bytes:
        if not self._inflater.needs_input or self._is_read:
            return b""
        data = self._file.read(_READ_BYTES if self._left is None else min(_READ_BYTES, self._left))
        self._is_read = not data
        if self._left is not None:
            self._left -= len(data)
        return data


_HEAD_BYTES: Final = len(MAGIC) + SIZES.size


def layer_bytes_of(recipe: BinaryIO) -> int:
    """Return how many bytes the layer is said to have, from a recipe's first ones; DeltaError."""
    return _read_sizes(recipe)[0]


def _read_sizes(file: BinaryIO) -> tuple[int, int, int]:
    """Return the sizes of the layer, and of the operations, plain and compressed."""
    head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(MAGIC):
        raise DeltaError("the recipe is of another version, or none")
    layer_bytes, plain_bytes, compressed_bytes = SIZES.unpack(head[len(MAGIC) :])
    return int(layer_bytes), int(plain_bytes), int(compressed_bytes)


def _read_recipe(file: BinaryIO, layer_max_bytes: int) -> _Recipe:
    layer_bytes, plain_bytes, compressed_bytes = _read_sizes(file)
    if layer_bytes > min(layer_max_bytes, LAYER_MAX_BYTES) or plain_bytes > OPERATIONS_MAX_BYTES:
        raise DeltaError(
            f"the recipe is too large: a layer of {layer_bytes:,} bytes from {plain_bytes:,} bytes of operations"
        )
    operations = b"".join(_Inflated(file, compressed_bytes).take(plain_bytes))
    file.seek(_HEAD_BYTES + compressed_bytes)
    return _Recipe(layer_bytes, operations, _Inflated(file))


class _Base:
    """The base on its way past, forward only."""

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self._parts = split(pieces)
        self._index = -1
        self.padding = b""
        """Behind the content that was read last."""

    def head(self, index: int) -> Head:
        """Go on to an entry."""
        for part in self._parts:
            if isinstance(part, Head):
                self._index += 1
                if self._index == index:
                    return part
        raise DeltaError(f"the base has no entry {index:,}")

    def content(self) -> Iterator[memoryview]:
        """Yield the content of the entry whose head was read last."""
        for part in self._parts:
            if isinstance(part, End):
                self.padding = part.padding
                return
            if isinstance(part, Raw | Head):
                break
            yield part
        raise DeltaError("the base is cut off")


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where an entry lies in the file of those that are aside, and what its head is like."""

    offset: int
    head_bytes: int
    header_at: int
    size: int
    padding_bytes: int
    is_compiled: bool
    checksum: int | None


class _Aside:
    """Entries out of order, in a file."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._kept: dict[int, _Kept] = {}
        self._last: _Kept | None = None
        self.padding = b""

    def fill(self, indexes: Iterable[int], base: _Base) -> None:
        """Read the entries; `indexes` ascend."""
        for index in indexes:
            offset, head = self._used_bytes, base.head(index)
            self._append(head.content)
            for piece in base.content():
                self._append(piece)
            self._append(base.padding)
            self._kept[index] = _Kept(
                offset,
                len(head.content),
                head.header_at,
                head.size,
                len(base.padding),
                head.is_compiled,
                head.checksum,
            )

    def head(self, index: int) -> Head:
        """See `_Base.head`."""
        kept = self._last = self._kept[index]
        self._file.seek(kept.offset)
        return Head(self._file.read(kept.head_bytes), kept.header_at, kept.size, kept.is_compiled, kept.checksum)

    def content(self) -> Iterator[bytes]:
        """See `_Base.content`."""
        assert self._last is not None
        kept, at = self._last, self._last.offset + self._last.head_bytes
        end = at + kept.size
        while at < end:
            self._file.seek(at)
            piece = self._file.read(min(_OUTPUT_BYTES, end - at))
            if not piece:
                raise DeltaError("the temporary file of entries out of order is incomplete")
            at += len(piece)
            yield piece
        self._file.seek(end)
        self.padding = self._file.read(kept.padding_bytes)

    def _append(self, content: Buffer) -> None:
        self._used_bytes += memoryview(content).nbytes
        if self._used_bytes > self._max_bytes:
            raise DeltaError(f"more than {self._max_bytes:,} bytes are out of order")
        self._file.write(content)


def rebuild(
    recipe: BinaryIO,
    open_base: OpenBase,
    aside: BinaryIO,
    *,
    layer_max_bytes: int = LAYER_MAX_BYTES,
    aside_max_bytes: int = ASIDE_MAX_BYTES,
) -> Iterator[bytes | memoryview]:
    """Yield a layer's plain tar in pieces of any size, none empty; its digest is for the caller to check.

    `recipe` is a file from its beginning, `aside` an empty one for what is out of order. Raises DeltaError for whatever
    is wrong with the recipe, and what `open_base` raises.
    """
    parsed = _read_recipe(recipe, layer_max_bytes)
    kept = _Aside(aside, aside_max_bytes)
    indexes = {op.index for op in decode(parsed.operations) if isinstance(op, Copy) and op.is_aside}
    if indexes:
        kept.fill(sorted(indexes), _Base(open_base()))
    made = 0
    for piece in _make(parsed, _Base(open_base()), kept):
        size = len(piece)
        made += size
        if made > parsed.layer_bytes:
            break
        if size:
            yield piece
    if made != parsed.layer_bytes:
        raise DeltaError(f"the recipe does not yield the {parsed.layer_bytes:,} bytes that it declares")


def _make(recipe: _Recipe, base: _Base, aside: _Aside) -> Iterator[bytes | memoryview]:
    made = 0
    for operation in decode(recipe.operations):
        if isinstance(operation, Literal):
            made += operation.size
            yield from recipe.literals.take(operation.size)
            continue
        source = aside if operation.is_aside else base
        head = source.head(operation.index)
        if operation.times:
            made += len(head.content)
            yield _at_times(head, operation.times)
        made += head.size
        yield from source.content()
        padding = source.padding if operation.times else bytes(padded(made) - made) if operation.is_padded else b""
        made += len(padding)
        yield padding


def _at_times(head: Head, times: tuple[int, ...]) -> bytes:
    try:
        return head.at_times(times)
    except ValueError as exc:
        raise DeltaError(str(exc)) from exc


def in_blocks(pieces: Iterable[bytes | memoryview], block_bytes: int) -> Iterator[bytes]:
    """Yield the same bytes in blocks of one size, but for the last, as a compressor is fed."""
    block = bytearray()
    for piece in pieces:
        block += piece
        while len(block) >= block_bytes:
            yield bytes(block[:block_bytes])
            del block[:block_bytes]
    if block:
        yield bytes(block)
