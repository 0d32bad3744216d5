"""Opening an archive: a plain tar in a regular file is indexed, all else is streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.header import BLOCK_BYTES
from registry_spooler.archive.indexed import IndexedArchive
from registry_spooler.archive.recognition import recognise
from registry_spooler.archive.source import FileFeed, FileSource, PipeFeed, Source
from registry_spooler.archive.streamed import StreamedArchive, stream
from registry_spooler.threads import in_thread


@asynccontextmanager
async def open_archive(source: Source) -> AsyncIterator[IndexedArchive | StreamedArchive]:
    """Open an archive for the time of an `async with`; ArchiveError says what a source is that is none.

    What a pipe holds is only known when its first member is asked for.
    """
    if isinstance(source, FileSource) and await in_thread(_look, source) is Compression.NONE:
        archive = IndexedArchive(source)
        await archive.index()
        yield archive
        return
    feed = FileFeed(source) if isinstance(source, FileSource) else PipeFeed(source)
    try:
        async with stream(feed) as streamed:
            yield streamed
    finally:
        feed.close()


def _look(source: FileSource) -> Compression:
    return recognise(source.read_at(0, BLOCK_BYTES))
