"""The part of a blob between its reader and the registry, and the memory that all uploads may take.

One task reads ahead into the window, the body of a request takes pieces out of it. When a piece leaves depends on the
reader:

1. One that can go back: when the piece has been written to the socket; at most READ_AHEAD_BYTES are read ahead.
2. Any other: when the registry has acknowledged the piece, within what the budget grants.

All uploads share one budget; each may always retain its floor, even when the others have it all. Nobody waits for
memory: when there is no more, a chunk closes early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from registry_spooler.oci.blob import PIECE_BYTES, BlobReader
from registry_spooler.progress import Progress

FLOOR_BYTES: Final = 6 << 20
"""What the pickiest registry asks of every chunk but the last, 5 MiB, and one piece: a chunk can always be closed."""
TOTAL_BYTES: Final = 32 << 20
"""Two chunks of the default size for an upload that is alone, little more than the floors for five."""
READ_AHEAD_BYTES: Final = 2 * PIECE_BYTES
SMALL_PIECE_BYTES: Final = 64 << 10


@dataclass(slots=True)
class ChunkBudget:
    """The memory that all uploads share. Sizes are in bytes; for one event loop, not for threads."""

    floor_bytes: int = FLOOR_BYTES
    total_bytes: int = TOTAL_BYTES
    taken_bytes: int = 0
    """What uploads hold now; more than the total only by floors."""

    def grant(self, held: int, wanted: int, floor: int) -> int:
        """Take what there is for an upload that holds some and wants so much in all; return what it now holds."""
        granted = max(held, min(wanted, max(floor, held + self.total_bytes - self.taken_bytes)))
        self.taken_bytes += granted - held
        return granted


class Window:
    """Bytes `start` to `end` of a blob. `feed` runs in one task, everything else in the sender's."""

    def __init__(self, reader: BlobReader, budget: ChunkBudget, progress: Progress, *, retains: bool) -> None:
        self._reader = reader
        self._budget = budget
        self._progress = progress
        self._retains = retains
        self._pieces: deque[memoryview] = deque()
        self._changed = anyio.Event()
        self._rewind_to: int | None = None
        self._granted_bytes = 0
        self.floor_bytes = budget.floor_bytes
        """What may be retained whatever other uploads hold; may be raised to what the registry needs."""
        self.start = 0
        self.end = 0
        self.written_end = 0
        self.ended = False

    @property
    def held_bytes(self) -> int:
        """The bytes in memory."""
        return self.end - self.start

    async def feed(self) -> None:
        """Read ahead until cancelled; at the end, only a rewind gives more to do. The reader's errors come out."""
        while True:
            if (offset := self._rewind_to) is not None:
                await self._reader.rewind(offset)
                self._pieces.clear()
                self.start = self.end = offset
                self._rewind_to, self.ended = None, False
            elif self.ended or not self._has_room():
                await self._changed.wait()
                continue
            else:
                self._append(memoryview(await self._reader.read()).cast("B"))
            self._notify()

    def reaches_back_to(self, offset: int) -> bool:
        """Return whether the bytes from `offset` on can be sent again."""
        return self.start <= offset or self._reader.rewindable

    async def go_to(self, offset: int) -> None:
        """Move the window's start to `offset`: drop bytes, or have the reader go back."""
        if self.start <= offset <= self.end:
            self._drop_before(offset)
        else:
            self._rewind_to = offset
            await self._until(lambda: self._rewind_to is None)

    async def wait_for(self, end: int) -> None:
        """Wait until the window reaches `end` or the blob's end, or has no room for more."""
        await self._until(lambda: self.end >= end or self.ended or not self._has_room())

    async def wait_for_end(self) -> None:
        """Wait until the reader has verified everything; call it when all bytes have been taken."""
        await self._until(lambda: self.ended)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            # The feed may wait for room in a budget that was full, and is not any longer: it has to look again.
            self._notify()
            await self._changed.wait()

    async def next_chunk(self, smallest: int, largest: int, largest_unretained: int) -> int:
        """Return how long the chunk from `start` on should be; 0 at the blob's end.

        One of a blob whose length is known may leave before its bytes have been read. Of any other, it leaves as soon
        as it is half of what may be retained, so that the other half is filled while it is on its way.
        """
        if self._reader.size is None:
            half = self._stretch(2 * largest) // 2 if self._retains else largest
            await self.wait_for(self.start + min(largest, max(smallest, half)))
            return min(largest, self.held_bytes)
        left = self._reader.size - self.start
        if not self._retains:
            return min(left, largest_unretained)
        # One piece less than allowed: a piece is only read when a whole one has room.
        length = min(left, largest, self._stretch(min(left, largest) + PIECE_BYTES) - PIECE_BYTES)
        self._notify()  # for the same reason as in `_until`
        return length

    async def body(self, offset: int, length: int | None) -> AsyncGenerator[memoryview]:
        """Yield the pieces from `offset` on, waiting for those that are still to be read; None: up to the end.

        A piece counts as written when the next one is asked for.
        """
        position, limit = offset, None if length is None else offset + length
        while position != limit:
            while self.end <= position and not self.ended:
                await self._changed.wait()
            if self.end <= position:
                assert limit is None, f"the reader ended at byte {position}, and had promised more"
                return
            piece = self._piece_at(position)[: None if limit is None else limit - position]
            yield piece
            position += len(piece)
            self._progress.bytes_sent += len(piece)
            self.written_end = position
            if not self._retains:
                self._drop_before(position)

    def whole(self) -> bytes:
        """Return all that is held."""
        return b"".join(self._pieces)

    def stop_retaining(self) -> None:
        """Retain nothing from now on: only what the reader can read again can be sent twice."""
        self._retains = False
        self._shrink(0)
        self._notify()

    def close(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self.start = self.end
        self._shrink(0)

    def _piece_at(self, position: int) -> memoryview:
        offset = self.start
        for piece in self._pieces:
            if position < offset + len(piece):
                return piece[position - offset :]
            offset += len(piece)
        raise AssertionError(f"byte {position} is not in the window {self.start}..{self.end}")

    def _drop_before(self, offset: int) -> None:
        while self._pieces and self.start + len(self._pieces[0]) <= offset:
            self.start += len(self._pieces.popleft())
        if self._pieces and self.start < offset:
            self._pieces[0] = self._pieces[0][offset - self.start :]
            self.start = offset
        self._shrink(self.held_bytes)
        self._notify()

    def _append(self, piece: memoryview) -> None:
        """Add a piece; small ones, as of well compressed data, are joined, or there would be thousands of them."""
        if self._rewind_to is not None:
            return
        self.ended = not len(piece)
        if self._pieces and len(self._pieces[-1]) + len(piece) <= SMALL_PIECE_BYTES:
            self._pieces[-1] = memoryview(bytes(self._pieces[-1]) + piece)
        else:
            self._pieces.append(piece)
        self.end += len(piece)

    def _has_room(self) -> bool:
        wanted = self.held_bytes + PIECE_BYTES
        return wanted <= (self._stretch(wanted) if self._retains else READ_AHEAD_BYTES)

    def _stretch(self, wanted: int) -> int:
        """Return how many bytes may be retained, of so many, and at least the floor."""
        self._granted_bytes = self._budget.grant(self._granted_bytes, wanted, self.floor_bytes)
        return max(self._granted_bytes, self.floor_bytes)

    def _shrink(self, needed: int) -> None:
        """Give back to the budget what is not needed to retain this many bytes."""
        if needed < self._granted_bytes:
            self._budget.taken_bytes -= self._granted_bytes - needed
            self._granted_bytes = needed

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
