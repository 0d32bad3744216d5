"""A layer's tar, cut into entries: headers, contents, and what is neither.

`TarSplitter` is fed the plain tar in pieces of any size and gives out all of its bytes in order. For each member comes
a `Head`, then the pieces of its content, then an `End`; a member of less than a block is all `Head`. From the first
block on that is no header (the end marker, garbage) everything is `Raw`. Nothing is an error here: a tar that is
misread gives a delta that saves nothing.

In the *normal form* of a head its times are blank, and the header's checksum with them. Two heads of one normal form
differ in times alone, so that one can be made from the other and two numbers. Besides the member's own time that is
the time in compiled Python (https://peps.python.org/pep-0552/), which repeats its source's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry_spooler.archive.limits import HEADER_EXTENSION_MAX_BYTES
from registry_spooler.archive.tar_header import (
    BLOCK_BYTES,
    ZERO_BLOCK,
    Header,
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
_EXTENSIONS: Final = frozenset(b"xXgLK")
_TIME: Final = slice(136, 148)
_CHECKSUM: Final = slice(148, 156)
_TIME_MAX: Final = 8**11 - 1
_NO_CHECKSUM: Final = b"\xff" * 8

_COMPILED_HEAD_BYTES: Final = 16
_COMPILED_TIME: Final = slice(8, 12)


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

    def times(self) -> tuple[int, ...] | None:
        """Return the times that the normal form leaves blank (seconds), or None if they are written in an odd way."""
        block = self.content[self.header_at : self.header_at + BLOCK_BYTES]
        try:
            time = int(block[_TIME][:11], 8)
        except ValueError:
            return None
        if block[_TIME] != _time_field(time) or block[_CHECKSUM] != _checksum_field(block):
            return None
        if not self.is_compiled:
            return (time,)
        return time, int.from_bytes(self._compiled()[_COMPILED_TIME], "little")

    def normal_form(self) -> bytes:
        """Return the content with blank times and checksum; the checksum stays when it is written in an odd way."""
        block = self.content[self.header_at : self.header_at + BLOCK_BYTES]
        checksum = _NO_CHECKSUM if block[_CHECKSUM] == _checksum_field(block) else block[_CHECKSUM]
        return self._with(b"\0" * 12, checksum, bytes(4))

    def at_times(self, times: tuple[int, ...]) -> bytes:
        """Return the content under other times; ValueError when they are not as many as it has, or too large."""
        if len(times) != 1 + self.is_compiled or max(times) > _TIME_MAX or (self.is_compiled and times[1] >> 32):
            raise ValueError("the times do not fit the header")
        block = bytearray(self.content[self.header_at : self.header_at + BLOCK_BYTES])
        block[_TIME] = time = _time_field(times[0])
        return self._with(time, _checksum_field(block), times[-1].to_bytes(4, "little") if self.is_compiled else b"")

    def _compiled(self) -> bytes:
        start = self.header_at + BLOCK_BYTES
        return self.content[start : start + _COMPILED_HEAD_BYTES]

    def _with(self, time: bytes, checksum: bytes, compiled_time: bytes) -> bytes:
        content, at = bytearray(self.content), self.header_at
        content[at + _TIME.start : at + _TIME.stop] = time
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
"""What a tar is cut into. A memoryview is content, and valid until the next part is asked for."""


class TarSplitter:
    """Cuts one tar."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._header_at = 0
        self._size: int | None = None
        """What an extension header says of the next member's."""
        self._content_bytes = 0
        """Of the member whose header is being read."""
        self._content_left = 0
        """To be given out now."""
        self._padding_bytes = 0
        self._buffer = bytearray()
        self._wanted = BLOCK_BYTES
        self._take: Callable[[bytes], Iterator[Part]] = self._take_header
        self._is_raw = False

    def feed(self, piece: Buffer) -> Iterator[Part]:
        """Take the next bytes; yield what is complete by now. To be read to its end before more is fed."""
        view = memoryview(piece).cast("B")
        at = 0
        while at < len(view):
            if self._is_raw:
                yield Raw(view[at:])
                return
            if self._content_left:
                content = view[at : at + self._content_left]
                at += len(content)
                self._content_left -= len(content)
                yield content
                if not self._content_left:
                    yield from self._want(self._padding_bytes, self._take_padding)
                continue
            collected = view[at : at + self._wanted - len(self._buffer)]
            at += len(collected)
            self._buffer += collected
            if len(self._buffer) == self._wanted:
                taken, self._buffer = bytes(self._buffer), bytearray()
                yield from self._take(taken)

    def finish(self) -> Iterator[Part]:
        """Yield what is left when the tar has ended."""
        rest = bytes(self._head + self._buffer)
        self._head, self._buffer, self._is_raw = bytearray(), bytearray(), True
        if rest:
            yield Raw(rest)

    def _want(self, count: int, take: Callable[[bytes], Iterator[Part]]) -> Iterator[Part]:
        self._wanted, self._take = count, take
        if not count:
            yield from take(b"")

    def _give_up(self) -> Iterator[Part]:
        """Everything that is held, and all that comes, is raw."""
        yield from self.finish()

    def _take_header(self, block: bytes) -> Iterator[Part]:
        self._head += block
        header = _header(block)
        if header is None or len(self._head) > HEAD_MAX_BYTES:
            yield from self._give_up()
        elif header.type[0] not in _EXTENSIONS:
            yield from self._begin(header)
        elif header.size > HEADER_EXTENSION_MAX_BYTES:
            yield from self._give_up()
        else:
            is_records = header.type in b"xX"
            yield from self._want(padded(header.size), self._take_records if is_records else self._take_extension)

    def _take_extension(self, content: bytes) -> Iterator[Part]:
        self._head += content
        yield from self._want(BLOCK_BYTES, self._take_header)

    def _take_records(self, content: bytes) -> Iterator[Part]:
        self._size = _size_in(content)
        yield from self._take_extension(content)

    def _begin(self, header: Header) -> Iterator[Part]:
        size = header.size if self._size is None else self._size
        self._content_bytes = 0 if header.type[0] in _HEADER_ONLY else size
        self._header_at = len(self._head) - BLOCK_BYTES
        self._size = None
        if header.sparse_continues:
            yield from self._want(BLOCK_BYTES, self._take_sparse_map)
        else:
            yield from self._begin_content()

    def _take_sparse_map(self, block: bytes) -> Iterator[Part]:
        self._head += block
        if len(self._head) > HEAD_MAX_BYTES:
            yield from self._give_up()
        elif sparse_map_continues(block):
            yield from self._want(BLOCK_BYTES, self._take_sparse_map)
        else:
            yield from self._begin_content()

    def _begin_content(self) -> Iterator[Part]:
        size = self._content_bytes
        self._padding_bytes = padded(size) - size
        if size >= BLOCK_BYTES:
            yield from self._want(_COMPILED_HEAD_BYTES, self._take_first)
        else:
            yield from self._want(padded(size), self._take_small)

    def _take_small(self, content: bytes) -> Iterator[Part]:
        is_compiled = self._header_at + BLOCK_BYTES == len(self._head) and _is_compiled(content)
        yield self._end_head(content, 0, is_compiled=is_compiled)
        yield End()
        yield from self._want(BLOCK_BYTES, self._take_header)

    def _take_first(self, first: bytes) -> Iterator[Part]:
        left = self._content_bytes - len(first)
        if self._header_at + BLOCK_BYTES == len(self._head) and _is_compiled(first):
            yield self._end_head(first, left, is_compiled=True)
        else:
            yield self._end_head(b"", left + len(first), is_compiled=False)
            yield memoryview(first)
        self._content_left = left

    def _end_head(self, content: bytes, size: int, *, is_compiled: bool) -> Head:
        head = Head(bytes(self._head + content), self._header_at, size, is_compiled)
        self._head = bytearray()
        return head

    def _take_padding(self, padding: bytes) -> Iterator[Part]:
        yield End(padding)
        yield from self._want(BLOCK_BYTES, self._take_header)


def split(pieces: Iterable[Buffer]) -> Iterator[Part]:
    """Cut a tar that can be read piece by piece."""
    splitter = TarSplitter()
    for piece in pieces:
        yield from splitter.feed(piece)
    yield from splitter.finish()


def _header(block: bytes) -> Header | None:
    if block == ZERO_BLOCK:
        return None
    try:
        return read_header(block)
    except NotAHeader:
        return None


def _size_in(records: bytes) -> int | None:
    try:
        sizes = [value for key, value in read_records(records) if key == b"size"]
        return read_number(sizes[-1]) if sizes and sizes[-1] else None
    except ValueError:
        return None


def _is_compiled(content: bytes) -> bool:
    return len(content) >= _COMPILED_HEAD_BYTES and content[2:8] == b"\r\n\0\0\0\0"


def _time_field(time: int) -> bytes:
    return b"%011o\0" % time


def _checksum_field(block: bytes | bytearray) -> bytes:
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    return b"%06o\0 " % total
