"""Blob readers whose reading shows in a job's progress."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from registry_spooler.archive import MemberOpener, MemberReader
from registry_spooler.blob import BlobOpener, BlobReader, Measured
from registry_spooler.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Buffer


class WatchedReader:
    """A `BlobReader` that calls `advanced` after every read."""

    def __init__(self, reader: MemberReader, advanced: Callable[[], None]) -> None:
        self._reader = reader
        self._advanced = advanced

    @property
    def size(self) -> int | None:
        """See `BlobReader.size`."""
        return self._reader.size

    @property
    def rewindable(self) -> bool:
        """See `BlobReader.rewindable`."""
        return self._reader.rewindable

    @property
    def measured(self) -> Measured:
        """See `BlobReader.measured`."""
        return self._reader.measured

    async def read(self) -> Buffer:
        """See `BlobReader.read`."""
        piece = await self._reader.read()
        self._advanced()
        return piece

    async def rewind(self, offset: int) -> None:
        """See `BlobReader.rewind`."""
        await self._reader.rewind(offset)


def watched(opener: MemberOpener, progress: Progress) -> BlobOpener:
    """The same blob, counted into `progress`; when it is opened again, what was read before counts no longer."""
    counted = 0

    @asynccontextmanager
    async def opened() -> AsyncIterator[BlobReader]:
        nonlocal counted
        progress.bytes_done -= counted
        counted = 0
        async with opener() as reader:

            def advanced() -> None:
                nonlocal counted
                progress.bytes_done += reader.consumed - counted
                progress.bytes_read += reader.consumed - counted
                counted = reader.consumed

            yield WatchedReader(reader, advanced)

    return opened
