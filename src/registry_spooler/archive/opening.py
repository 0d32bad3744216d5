"""Opening an archive: a plain tar in a regular file is indexed, all else is streamed; and whether it is one."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from registry_spooler.aio import in_thread, in_worker
from registry_spooler.archive.compression import Compression, window_bytes
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.detect import recognise
from registry_spooler.archive.limits import WINDOW_MAX_BYTES, WINDOW_USUAL_BYTES
from registry_spooler.archive.member_blob import NOTHING_EXPECTED, Expectation, MemberOpener, codec_for, file_member
from registry_spooler.archive.source import Feed, FileFeed, FileSource, PipeFeed, PipeSource, Source
from registry_spooler.archive.streaming import Archive, StreamedArchive, stream
from registry_spooler.archive.tar import FileByteReader, TarReader
from registry_spooler.archive.tar_header import BLOCK_BYTES, Member, require_file
from registry_spooler.errors import ArchiveError

_HEAD_BYTES: Final = 512
_STEP_SECONDS: Final = 0.05
"""How long headers are read before a cancellation, and other work, get their chance."""


class IndexedArchive(Archive):
    """A plain tar in a regular file. All members are known from the start; any task may read any of them."""

    def __init__(self, source: FileSource) -> None:
        super().__init__(Contents(fetch=lambda member: source.read_at(member.offset, member.size)))
        self._source = source
        self._reader = TarReader(FileByteReader(source))

    async def index(self) -> None:
        """Read all headers; called once, by who makes this."""
        while not await in_worker(self._index_some):
            pass

    def _index_some(self) -> bool:
        until = time.monotonic() + _STEP_SECONDS
        while time.monotonic() < until:
            member = self._reader.next()
            if member is None:
                self._contents.complete = self._reader.ended
                return True
            self._contents.add(member, self._reader.archives)
        return False

    async def head(self, member: Member, size: int = _HEAD_BYTES) -> bytes:
        """The first bytes of a member, to `sniff`."""
        return await in_worker(self._source.read_at, member.offset, min(size, member.size))

    def blob(
        self,
        member: Member,
        *,
        compression: Compression = Compression.NONE,
        inside: Compression = Compression.NONE,
        expect: Expectation = NOTHING_EXPECTED,
        inflate: bool = True,
        hashes: bool = True,
    ) -> MemberOpener:
        """A member's bytes, as they are (NONE; rewindable) or compressed on the way. See `codec_for`."""
        require_file(member)
        codec = partial(codec_for, compression=compression, inside=inside, expect=expect, inflate=inflate)
        return file_member(self._source, member, partial(codec, member, hashes=hashes))


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
    """Wait for an archive's turn if its window is larger than usual; yield how large it may be."""
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


_OF_IMAGES: Final = re.compile(
    r"(?:[^/]+/)?(?:oci-layout|blobs/sha256/[0-9a-f]{64})"
    r"|(?:sha256:)?[0-9a-f]{64}(?:\.json|\.tar|\.tar\.gz|/json|/layer\.tar)?"
)
"""Members that only image archives have: of an OCI layout, which may lie in a folder, and of docker archives."""
_MANIFEST: Final = "manifest.json"
_FIRST_BYTES: Final = 512
_MEMBERS_PER_STEP: Final = 1024
"""How many headers are read before a cancellation gets its chance."""


async def is_image_archive(source: FileSource) -> bool:
    """Return whether a file is an image archive, be it a whole one or not.

    Of a plain tar the headers are read up to the first member that tells, of a compressed one the content. OSError
    when the file cannot be read.
    """
    try:
        if await in_thread(_compression, source) is Compression.NONE:
            reader = TarReader(FileByteReader(source))
            while (found := await in_worker(_find_telling_member, source, reader)) is None:
                pass
            return found
        async with open_archive(source) as archive:
            assert isinstance(archive, StreamedArchive)
            async for member in archive:
                if _tells(member, archive.head):
                    return True
    except ArchiveError:
        pass
    return False


def _compression(source: FileSource) -> Compression:
    return recognise(source.read_at(0, BLOCK_BYTES))


def _find_telling_member(source: FileSource, reader: TarReader) -> bool | None:
    """Read some headers; return whether a member tells, or None when there are more."""
    for _ in range(_MEMBERS_PER_STEP):
        if (member := reader.next()) is None:
            return False
        if _tells(member, source.read_at(member.offset, _FIRST_BYTES) if member.path == _MANIFEST else b""):
            return True
    return None


def _tells(member: Member, head: bytes) -> bool:
    if member.path == _MANIFEST:
        return head.lstrip().startswith(b"[") and (b'"Config"' in head or b'"Layers"' in head)
    return _OF_IMAGES.fullmatch(member.path) is not None
