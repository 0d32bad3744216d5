"""Opening an archive: what is it, and which way of reading fits?"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from registry_spooler.archive.indexed import IndexedArchive
from registry_spooler.archive.source import Source
from registry_spooler.archive.streamed import StreamedArchive


def open_archive(source: Source) -> AbstractAsyncContextManager[IndexedArchive | StreamedArchive]:
    """Open an archive for the time of an `async with`; ArchiveError says what a source is that is none."""
    raise NotImplementedError
