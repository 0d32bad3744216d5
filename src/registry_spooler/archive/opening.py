"""Opening an archive: a plain tar in a regular file is indexed, all else is streamed; and whether it is one."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.lowlevel

from registry_spooler.aio import in_thread, in_worker
from registry_spooler.archive.compression import Compression, window_bytes
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.detect import recognise
from registry_spooler.archive.formats.image import ArchiveImage
from registry_spooler.archive.formats.layout import find_images
from registry_spooler.archive.limits import WINDOW_MAX_BYTES, WINDOW_USUAL_BYTES
from registry_spooler.archive.member_blob import NOTHING_EXPECTED, Expectation, MemberOpener, range_blob
from registry_spooler.archive.source import Feed, FileFeed, FileSource, PipeFeed, PipeSource, Source
from registry_spooler.archive.streaming import StreamedArchive, stream
from registry_spooler.archive.tar import FileByteReader, TarReader
from registry_spooler.archive.tar_header import BLOCK_BYTES, Member, require_file, shown
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.progress import LeftOut

_HEAD_BYTES: Final = 512
_STEP_SECONDS: Final = 0.05
"""How long headers are read before a cancellation, and other work, get their chance."""


class IndexedArchive:
    """A plain tar in a regular file. All members are known from the start; any task may read any of them."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._reader = TarReader(FileByteReader(source))
        self._contents = Contents(fetch=self._fetch)

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

    def _fetch(self, member: Member) -> bytes:
        return self._source.read_at(member.offset, member.size)

    async def images(self) -> tuple[ArchiveImage, ...]:
        """What the archive holds; ArchiveError with a sentence for the user when it holds no image."""
        return await in_worker(find_images, self._contents)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Entries of the index that belong to no image; known when the images are."""
        return tuple(self._contents.left_out)

    async def content(self, digest: Digest) -> bytes | None:
        """A manifest's or a config's bytes (at most 4 MiB), checked; None when the archive lacks it."""
        return await in_worker(self._contents.content, digest)

    async def manifest(self, descriptor: Descriptor) -> Manifest | None:
        """The manifest that a descriptor points to, read once; None when the archive lacks it."""
        return await in_worker(self._contents.manifest, descriptor)

    def find(self, digest: Digest) -> Member | None:
        """The member that holds a blob, by its path; None when the archive lacks it."""
        return self._contents.find(digest)

    def missing(self, what: str) -> ArchiveError:
        """The error for a member that is not there: `incomplete` when the tar has no end marker."""
        return self._contents.missing(what)

    async def head(self, member: Member, size: int = _HEAD_BYTES) -> bytes:
        """The first bytes of a member, to `sniff`."""
        return await in_worker(self._source.read_at, member.offset, min(size, member.size))

    def blob(
        self,
        member: Member,
        *,
        compression: Compression = Compression.NONE,
        expect: Expectation = NOTHING_EXPECTED,
        inflate: bool = True,
        hashes: bool = True,
    ) -> MemberOpener:
        """A member's bytes, as they are (NONE; rewindable) or compressed on the way. `hashes`: see `PassThrough`."""
        require_file(member)
        return range_blob(
            self._source,
            member.offset,
            member.size,
            compression=compression,
            expect=expect,
            inflate=inflate,
            hashes=hashes,
            name=shown(member.path),
        )


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
            while (found := await in_worker(_look_on, source, reader)) is None:
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


def _look_on(source: FileSource, reader: TarReader) -> bool | None:
    """Look at some members; None when there are more."""
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
