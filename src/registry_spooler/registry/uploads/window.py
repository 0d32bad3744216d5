"""The part of a blob between its reader and the registry, and the memory that all uploads may take.

One task reads ahead into the window, the body of a request takes pieces out of it. When a piece leaves depends on the
reader:

1. One that can go back: when the piece has been written to the socket; at most READ_AHEAD_BYTES are read ahead.
2. Any other: when the registry has acknowledged the piece, within the upload's share of the budget.

All uploads share one total; each may always retain `floor_bytes`, even when the others have it all. Nobody waits for
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


@dataclass(slots=True)
class ChunkBudget:
    """The memory that all uploads share. Sizes are in bytes; for one event loop, not for threads."""

    floor_bytes: int = FLOOR_BYTES
    total_bytes: int = TOTAL_BYTES
    taken_bytes: int = 0
    """What uploads hold now; more than the total only by floors."""

    def share(self) -> BudgetShare:
        """Return one upload's part, with nothing taken yet."""
        return BudgetShare(self, self.floor_bytes)


@dataclass(slots=True)
class BudgetShare:
    """One upload's part. `floor_bytes` may be raised to what its registry needs."""

    budget: ChunkBudget
    floor_bytes: int
    taken_bytes: int = 0

    def stretch(self, wanted: int) -> int:
        """Take what there is towards `wanted` bytes in all; return how many may now be retained."""
        free = max(0, self.budget.total_bytes - self.budget.taken_bytes)
        granted = min(wanted, max(self.floor_bytes, self.taken_bytes + free))
        if granted > self.taken_bytes:
            self.budget.taken_bytes += granted - self.taken_bytes
            self.taken_bytes = granted
        return max(self.taken_bytes, self.floor_bytes)

    def settle(self, needed: int) -> None:
        """Give back what is not needed to retain this many bytes; 0 at the end."""
        surplus = self.taken_bytes - needed
        if surplus > 0:
            self.taken_bytes = needed
            self.budget.taken_bytes -= surplus


READ_AHEAD_BYTES: Final = 2 * PIECE_BYTES
SMALL_PIECE_BYTES: Final = 64 << 10


class WindowBroken(Exception):
    """The reader failed: the body of the running request cannot go on. `Window.failure` says why."""


class Window:
    """Bytes `start` to `end` of a blob. `feed` runs in one task, everything else in the sender's."""

    def __init__(self, reader: BlobReader, share: BudgetShare, progress: Progress, *, retains: bool) -> None:
        self._reader = reader
        self._share = share
        self._progress = progress
        self._retains = retains
        self._pieces: deque[memoryview] = deque()
        self._changed = anyio.Event()
        self._rewind_to: int | None = None
        self.start = 0
        self.end = 0
        self.written_end = 0
        self.ended = False
        self.failure: BaseException | None = None

    @property
    def held_bytes(self) -> int:
        """The bytes in memory."""
        return self.end - self.start

    async def feed(self) -> None:
        """Read ahead until cancelled; after the end, or a failure, only a rewind gives more to do."""
        try:
            while True:
                if self._rewind_to is not None:
                    await self._go_back(self._rewind_to)
                elif self.ended or not self._has_room():
                    await self._changed.wait()
                else:
                    await self._read_piece()
        except Exception as exc:  # noqa: BLE001 - the sender raises it, in its own task
            self.failure = exc
            self._notify()

    def reaches_back_to(self, offset: int) -> bool:
        """Return whether the bytes from `offset` on can be sent again."""
        return self.start <= offset or self._reader.rewindable

    async def go_to(self, offset: int) -> None:
        """Move the window's start to `offset`: drop bytes, or have the reader go back."""
        if self.start <= offset <= self.end:
            self.acknowledge(offset)
        else:
            self._rewind_to = offset
            await self._until(lambda: self._rewind_to is None)

    def check(self) -> None:
        """Raise the reader's error, if there is one."""
        if self.failure is not None:
            raise self.failure

    async def wait_for(self, end: int) -> None:
        """Wait until the window reaches `end` or the blob's end, or has no room for more."""
        await self._until(lambda: self.end >= end or self.ended or not self._has_room())

    async def wait_for_end(self) -> None:
        """Wait until the reader has verified everything; call it when all bytes have been taken."""
        await self._until(lambda: self.ended)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait in the sender's task; raise the reader's error."""
        while not is_so():
            self.check()
            # The feed may wait for room in a budget that was full, and is not any longer: it has to look again.
            self._notify()
            await self._changed.wait()
        self.check()

    def reserve(self, length: int) -> int:
        """Return how long a chunk from `start` may be, up to `length`, so that all of it can be retained."""
        if not self._retains:
            return length
        # One piece less than allowed: a piece is only read when a whole one has room.
        reserved = min(length, self._share.stretch(length + PIECE_BYTES) - PIECE_BYTES)
        self._notify()  # for the same reason as in `_until`
        return reserved

    async def wait_for_chunk(self, smallest: int, largest: int) -> int:
        """Wait until a chunk is worth sending, and say how long it is; 0 at the blob's end.

        It leaves as soon as it is half of what may be retained, so that the other half is filled while it is on
        its way.
        """
        half = self._share.stretch(2 * largest) // 2 if self._retains else largest
        await self.wait_for(self.start + min(largest, max(smallest, half)))
        return min(largest, self.held_bytes)

    def ask_for_floor(self, floor_bytes: int) -> None:
        """Reserve at least this much room, whatever other uploads hold."""
        self._share.floor_bytes = max(self._share.floor_bytes, floor_bytes)
        self._notify()

    def acknowledge(self, offset: int) -> None:
        """Drop everything before `offset`."""
        while self._pieces and self.start + len(self._pieces[0]) <= offset:
            self.start += len(self._pieces.popleft())
        if self._pieces and self.start < offset:
            self._pieces[0] = self._pieces[0][offset - self.start :]
            self.start = offset
        if self._retains:
            self._share.settle(self.held_bytes)
        self._notify()

    async def body(self, offset: int, length: int | None) -> AsyncGenerator[memoryview]:
        """Yield the pieces from `offset` on, waiting for those that are still to be read; None: up to the end.

        A piece counts as written when the next one is asked for. WindowBroken when the reader fails.
        """
        position, limit = offset, None if length is None else offset + length
        while position != limit:
            while self.end <= position and not self.ended and self.failure is None:
                await self._changed.wait()
            if self.end <= position:
                if self.failure is not None or limit is not None:
                    raise WindowBroken
                return
            piece = self._piece_at(position)[: None if limit is None else limit - position]
            yield piece
            position += len(piece)
            self._progress.bytes_sent += len(piece)
            self.written_end = position
            if not self._retains:
                self.acknowledge(position)

    def whole(self) -> bytes:
        """Return all that is held."""
        return b"".join(self._pieces)

    def stop_retaining(self) -> None:
        """Retain nothing from now on: only what the reader can read again can be sent twice."""
        self._retains = False
        self._share.settle(0)
        self._notify()

    def close(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self.start = self.end
        self._share.settle(0)

    def _piece_at(self, position: int) -> memoryview:
        offset = self.start
        for piece in self._pieces:
            if position < offset + len(piece):
                return piece[position - offset :]
            offset += len(piece)
        raise AssertionError(f"byte {position} is not in the window {self.start}..{self.end}")

    def _has_room(self) -> bool:
        wanted = self.held_bytes + PIECE_BYTES
        return wanted <= (self._share.stretch(wanted) if self._retains else READ_AHEAD_BYTES)

    async def _read_piece(self) -> None:
        piece = memoryview(await self._reader.read()).cast("B")
        if self._rewind_to is not None:
            return
        if len(piece):
            self._keep(piece)
            self.end += len(piece)
        else:
            self.ended = True
        self._notify()

    def _keep(self, piece: memoryview) -> None:
        """Add a piece; small ones, as of well compressed data, are joined, or there would be thousands of them."""
        if self._pieces and len(self._pieces[-1]) + len(piece) <= SMALL_PIECE_BYTES:
            self._pieces[-1] = memoryview(bytes(self._pieces[-1]) + piece)
        else:
            self._pieces.append(piece)

    async def _go_back(self, offset: int) -> None:
        await self._reader.rewind(offset)
        self._pieces.clear()
        self.start = self.end = offset
        self.ended = False
        self._rewind_to = None
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
