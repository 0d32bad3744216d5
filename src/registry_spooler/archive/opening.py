"""Opening an archive: a plain tar in a regular file is indexed, all else is streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.lowlevel

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.header import BLOCK_BYTES
from registry_spooler.archive.indexed import IndexedArchive
from registry_spooler.archive.inflation import window_bytes
from registry_spooler.archive.limits import WINDOW_MAX_BYTES, WINDOW_USUAL_BYTES
from registry_spooler.archive.recognition import recognise
from registry_spooler.archive.source import Feed, FileFeed, FileSource, PipeFeed, PipeSource, Source
from registry_spooler.archive.streamed import StreamedArchive, stream
from registry_spooler.threads import in_thread

_turns: Final[anyio.lowlevel.RunVar[anyio.Lock]] = anyio.lowlevel.RunVar("registry_spooler_turns")


@asynccontextmanager
async def open_archive(source: Source) -> AsyncIterator[IndexedArchive | StreamedArchive]:
    """Open an archive for the time of an `async with`; ArchiveError says what a source is that is none.

    What a pipe holds is only known when its first member is asked for.
    """
    if isinstance(source, PipeSource):
        async with _streamed(PipeFeed(source), WINDOW_MAX_BYTES) as archive:
            yield archive
    elif recognise(head := await in_thread(source.read_at, 0, BLOCK_BYTES)) is Compression.NONE:
        indexed = IndexedArchive(source)
        await indexed.index()
        yield indexed
    else:
        async with _turn(source, head) as window_max_bytes, _streamed(FileFeed(source), window_max_bytes) as archive:
            yield archive


@asynccontextmanager
async def _streamed(feed: Feed, window_max_bytes: int) -> AsyncIterator[StreamedArchive]:
    try:
        async with stream(feed, window_max_bytes=window_max_bytes) as archive:
            yield archive
    finally:
        feed.close()


@asynccontextmanager
async def _turn(source: FileSource, head: bytes) -> AsyncIterator[int]:
    """Wait for an archive's turn, if its window is larger than usual; how large it may be."""
    if window_bytes(head) <= WINDOW_USUAL_BYTES:
        yield WINDOW_USUAL_BYTES
    elif source.has_turn:  # a further pass, while the first one is still open
        yield WINDOW_MAX_BYTES
    else:
        async with _the_turn():
            source.has_turn = True
            try:
                yield WINDOW_MAX_BYTES
            finally:
                source.has_turn = False


def _the_turn() -> anyio.Lock:
    try:
        return _turns.get()
    except LookupError:
        lock = anyio.Lock()
        _turns.set(lock)
        return lock
