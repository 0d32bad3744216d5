"""A layer's tar, cut into entries: headers, contents, and what is neither.

`TarSplitter` is fed the plain tar in pieces of any size and gives out all of its bytes in order. For each member comes
a `Head`, then the pieces of its content, then an `End`; a member of less than a block is all `Head`. From the first
block on that is no header (the end marker, garbage) everything is `Raw`. Nothing is an error here: a tar that is
misread gives a delta that saves nothing.

In the *normal form* of a head its times are blank, and the header's checksum with them. Two heads of one normal form
differ in times alone, so that one can be made from the other and two numbers. Besides the member's own time that is
the time in compiled Python (https://peps.python.org/pep-0552/), which repeats its source's.

A layer of libraries has a member every 10 kB, so what is done for each of them counts as much as hashing its content.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry_spooler.archive.limits import HEADER_EXTENSION_MAX_BYTES
from registry_spooler.archive.tar_header import (
    BLOCK_BYTES,
    ZERO_BLOCK,
    NotAHeader,
    padded,
    read_header,
    read_number,
    read_records,
    sparse_map_continues,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

HEAD_MAX_BYTES: Final = 2 * HEADER_EXTENSION_MAX_BYTES
"""A member's header with its extensions; a longer one is `Raw`."""

_HEADER_ONLY: Final = frozenset(b"123456")
_SPARSE: Final = ord("S")
_EXTENSIONS: Final = frozenset(b"xXgLK")
_RECORDS: Final = frozenset(b"xX")
_SIZE: Final = slice(124, 136)
_TIME: Final = slice(136, 148)
_CHECKSUM: Final = slice(148, 156)
_TIME_MAX: Final = 8**11 - 1
_NO_TIME: Final = bytes(12)
_NO_CHECKSUM: Final = b"\xff" * 8

_COMPILED_HEAD_BYTES: Final = 16
_COMPILED: Final = b"\r\n\0\0\0\0"
"""Behind the first two bytes."""
_COMPILED_TIME: Final = slice(8, 12)
_NO_COMPILED_TIME: Final = bytes(4)


@dataclass(frozen=True, slots=True)
class Head:
    """All blocks of a member before its content; with the content and its padding when that is less than a block."""

    content: bytes
    header_at: int
    """Where the member's own header begins, behind its extensions."""
    size: int
    """How many bytes of content follow, before the padding."""
    is_compiled: bool = False
    """Does the head end with, or its small content begin with, the 16 bytes in front of compiled Python?"""
    checksum: int | None = None
    """The header's; None if it is written in an odd way."""

    def times(self) -> tuple[int, ...] | None:
        """Return the times that the normal form leaves blank (seconds), or None if they are written in an odd way."""
        field = self.content[self.header_at + _TIME.start : self.header_at + _TIME.stop]
        try:
            time = int(field[:11], 8)
        except ValueError:
            return None
        if field != _time_field(time) or self.checksum is None:
            return None
        if not self.is_compiled:
            return (time,)
        start = self.header_at + BLOCK_BYTES
        return time, int.from_bytes(self.content[start + _COMPILED_TIME.start : start + _COMPILED_TIME.stop], "little")

    def normal_form(self) -> bytes:
        """Return the content with blank times and checksum; the checksum stays when it is written in an odd way."""
        return self._with(_NO_TIME, _NO_CHECKSUM if self.checksum is not None else None, _NO_COMPILED_TIME)

    def at_times(self, times: tuple[int, ...]) -> bytes:
        """Return the content under other times; ValueError when they are not as many as it has, or too large."""
        if len(times) != 1 + self.is_compiled or max(times) > _TIME_MAX or (self.is_compiled and times[1] >> 32):
            raise ValueError("the times do not fit the header")
        if self.checksum is None:
            raise ValueError("the checksum of the header is written in an odd way")
        before = self.content[self.header_at + _TIME.start : self.header_at + _TIME.stop]
        time = _time_field(times[0])
        checksum = _checksum_field(self.checksum - sum(before) + sum(time))
        return self._with(time, checksum, times[-1].to_bytes(4, "little") if self.is_compiled else b"")

    def _with(self, time: bytes, checksum: bytes | None, compiled_time: bytes) -> bytes:
        content, at = bytearray(self.content), self.header_at
        content[at + _TIME.start : at + _TIME.stop] = time
        if checksum is not None:
            content[at + _CHECKSUM.start : at + _CHECKSUM.stop] = checksum
        if self.is_compiled:
            start = at + BLOCK_BYTES
            content[start + _COMPILED_TIME.start : start + _COMPILED_TIME.stop] = compiled_time
        return bytes(content)


@dataclass(frozen=True, slots=True)
class End:
    """The end of a member, with the bytes between it and the next block."""

    padding: bytes = b""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that belong to no member, or to one that is cut off."""

    content: Buffer


Part = Head | memoryview | End | Raw
"""What a tar is cut into. A memoryview is content."""

_NO_PADDING: Final = End()


class TarSplitter:
    """Cuts one tar."""

    def __init__(self) -> None:
        self._rest = b""
        """The beginning of a head, or of a padding, that is not complete."""
        self._content_left = 0
        self._padding_bytes: int | None = None
        """Of the member whose content comes or has come; None between members."""
        self._is_raw = False

    def feed(self, piece: Buffer) -> Iterator[Part]:
        """Take the next bytes; yield what is complete by now. To be read to its end before more is fed."""
        if self._is_raw:
            yield Raw(piece)
            return
        data = self._rest + bytes(piece) if self._rest else bytes(piece)
        view, at = memoryview(data), 0
        while (part := self._next(data, view, at)) is not None:
            if isinstance(part, Head):
                at += len(part.content)
                yield part
                if not part.size:
                    yield _NO_PADDING
            elif isinstance(part, End):
                at += len(part.padding)
                yield part
            else:
                at += len(part)
                yield part
        self._rest = data[at:]
        if self._is_raw:
            yield from self.finish()

    def _next(self, data: bytes, view: memoryview, at: int) -> Head | memoryview | End | None:
        """Return the part that begins there; None if it is not complete, or no part of a member."""
        if self._content_left:
            content = view[at : at + self._content_left]
            self._content_left -= len(content)
            return content if content else None
        if self._padding_bytes is not None:
            padding = data[at : at + self._padding_bytes]
            if len(padding) < self._padding_bytes:
                return None
            self._padding_bytes = None
            return End(padding) if padding else _NO_PADDING
        try:
            head = _head(data, at)
        except NotAHeader:
            self._is_raw = True
            return None
        if head is not None and head.size:
            content_bytes = head.size + (_COMPILED_HEAD_BYTES if head.is_compiled else 0)
            self._content_left, self._padding_bytes = head.size, padded(content_bytes) - content_bytes
        return head

    def finish(self) -> Iterator[Part]:
        """Yield what is left when the tar has ended."""
        rest, self._rest, self._is_raw = self._rest, b"", True
        if rest:
            yield Raw(rest)


def split(pieces: Iterable[Buffer]) -> Iterator[Part]:
    """Cut a tar that can be read piece by piece."""
    splitter = TarSplitter()
    for piece in pieces:
        yield from splitter.feed(piece)
    yield from splitter.finish()


def _head(data: bytes, start: int) -> Head | None:
    """Return the head that begins there, or None if it is not complete; NotAHeader for what is none."""
    own = _own_header(data, start)
    at = _behind_sparse_maps(data, start, own) if own is not None else None
    if own is None or at is None:
        return None
    size, header_at = own.content_bytes, own.at - start
    within = padded(size) if size < BLOCK_BYTES else _COMPILED_HEAD_BYTES
    if len(data) - at < within:
        return None
    is_compiled = within > 0 and data[at + 2 : at + 8] == _COMPILED and at == own.at + BLOCK_BYTES
    if size < BLOCK_BYTES:
        return Head(data[start : at + within], header_at, 0, is_compiled, own.checksum)
    if is_compiled:
        return Head(data[start : at + within], header_at, size - within, is_compiled, own.checksum)
    return Head(data[start:at], header_at, size, is_compiled, own.checksum)


@dataclass(frozen=True, slots=True)
class _OwnHeader:
    """A member's own header, behind its extensions."""

    at: int
    content_bytes: int
    checksum: int | None
    sparse_continues: bool


def _own_header(data: bytes, start: int) -> _OwnHeader | None:
    at, size_in_records = start, None
    while (block := _block(data, start, at)) is not None:
        kind, size, checksum, sparse_continues = _fields(block)
        if kind not in _EXTENSIONS:
            if kind in _HEADER_ONLY:
                size = 0
            elif size_in_records is not None:
                size = size_in_records
            return _OwnHeader(at, size, checksum, sparse_continues)
        if size > HEADER_EXTENSION_MAX_BYTES:
            raise NotAHeader("an extension is too long")
        content = data[at + BLOCK_BYTES : at + BLOCK_BYTES + padded(size)]
        if len(content) < padded(size):
            return None
        if kind in _RECORDS:
            size_in_records = _size_in(content)
        at += BLOCK_BYTES + len(content)
    return None


def _behind_sparse_maps(data: bytes, start: int, own: _OwnHeader) -> int | None:
    """Return where the head ends but for its content; None if that is not there yet."""
    at, continues = own.at + BLOCK_BYTES, own.sparse_continues
    while continues:
        block = _block(data, start, at)
        if block is None:
            return None
        continues = sparse_map_continues(block)
        at += BLOCK_BYTES
    return at


def _block(data: bytes, start: int, at: int) -> bytes | None:
    """Return a block of the head that begins at `start`; None if it is not there yet."""
    if at + BLOCK_BYTES - start > HEAD_MAX_BYTES:
        raise NotAHeader("the head is too long")
    return data[at : at + BLOCK_BYTES] if at + BLOCK_BYTES <= len(data) else None


def _fields(block: bytes) -> tuple[int, int, int | None, bool]:
    """Return a header's type, size, checksum if it is written as usual, and whether more of a sparse map follows."""
    checksum, size = _checksum(block), block[_SIZE]
    if checksum is not None and size[:11].isdigit() and size[11] in b"\0 " and block[156] != _SPARSE:
        try:
            return block[156], int(size[:11], 8), checksum, False
        except ValueError:
            pass
    if block == ZERO_BLOCK:
        raise NotAHeader("it is empty")
    header = read_header(block)
    return header.type[0], header.size, checksum, header.sparse_continues


def _checksum(block: bytes) -> int | None:
    """Return the checksum if it is right, and written as usual."""
    field = block[_CHECKSUM]
    if field[6:] != b"\0 " or not field[:6].isdigit():
        return None
    try:
        checksum = int(field[:6], 8)
    except ValueError:
        return None
    # The low half of Adler-32 is one more than the sum of the bytes, modulo 65,521; ten times as fast as `sum`.
    total = checksum - 8 * ord(" ") + sum(field)
    return checksum if zlib.adler32(block) & 0xFFFF == (total + 1) % 65521 else None


def _size_in(records: bytes) -> int | None:
    try:
        sizes = [value for key, value in read_records(records) if key == b"size"]
        return read_number(sizes[-1]) if sizes and sizes[-1] else None
    except ValueError:
        return None


def _time_field(time: int) -> bytes:
    return b"%011o\0" % time


def _checksum_field(total: int) -> bytes:
    return b"%06o\0 " % total
