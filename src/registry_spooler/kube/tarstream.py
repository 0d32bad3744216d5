"""A tar as it comes by, for who wants to see what is in it before its end: plain code, fed bytes.

It reads what `registry-client pull` writes and nothing else: regular files, with GNU's long names, and an end marker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from registry_spooler.archive.header import BLOCK_BYTES, ZERO_BLOCK, NotAHeader, padded, read_header

if TYPE_CHECKING:
    from typing_extensions import Buffer

NAME_MAX_BYTES: Final = 4096
_FILES: Final = (b"0", b"\0")
_LONG_NAME: Final = b"L"


class NotAsPulled(ValueError):
    """What came is not what a pull writes; the reason is the message."""


class Members(Protocol):
    """Takes what is in the tar. Each method may raise NotAsPulled."""

    def begin(self, path: str, size: int) -> None:
        """A member begins."""

    def take(self, piece: memoryview) -> None:
        """The next bytes of it."""

    def end(self) -> None:
        """It is complete."""


class TarStream:
    """Feeds a tar's members to `members`. It holds no more than a header and a name."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._block = bytearray()
        self._left = 0
        self._padding = 0
        self._in_member = False
        self._name: bytearray | None = None
        self._zero_blocks = 0

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the tar."""
        view = memoryview(data).cast("B")
        while view:
            if self._left:
                view = self._feed_content(view)
            elif self._padding:
                taken = min(self._padding, len(view))
                self._padding -= taken
                view = view[taken:]
            else:
                taken = min(BLOCK_BYTES - len(self._block), len(view))
                self._block += view[:taken]
                view = view[taken:]
                if len(self._block) == BLOCK_BYTES:
                    self._read_block()

    def close(self) -> None:
        """Take note that no more comes."""
        if self._zero_blocks < 2 or self._block or self._left or self._padding:
            raise NotAsPulled("it has no end")

    def _feed_content(self, view: memoryview) -> memoryview:
        piece = view[: self._left]
        self._left -= len(piece)
        if self._in_member:
            self._members.take(piece)
            if not self._left:
                self._end_member()
        elif self._name is not None:
            self._name += piece
        return view[len(piece) :]

    def _read_block(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        if block == ZERO_BLOCK:
            self._zero_blocks += 1
            return
        if self._zero_blocks:
            raise NotAsPulled("there is something behind its end")
        try:
            header = read_header(block)
        except NotAHeader as exc:
            raise NotAsPulled(str(exc)) from exc
        self._left, self._padding = header.size, padded(header.size) - header.size
        if header.type == _LONG_NAME and header.size <= NAME_MAX_BYTES:
            self._name = bytearray()
        elif header.type in _FILES:
            self._begin_member(header.name)
        else:
            raise NotAsPulled("it holds something that is no file")

    def _begin_member(self, name: bytes) -> None:
        if self._name is not None:
            name, self._name = bytes(self._name).partition(b"\0")[0], None
        self._in_member = True
        self._members.begin(name.decode("utf-8", "backslashreplace"), self._left)
        if not self._left:
            self._end_member()

    def _end_member(self) -> None:
        self._in_member = False
        self._members.end()
