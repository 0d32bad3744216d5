"""Compressed archives and pipes: members come by once, front to back.

Flow: a task has the next batch of members read and decompressed in a thread, one batch ahead of the consumer (the
stream between them holds one more). The consumer steps through the batch at hand without leaving the loop,
and large members are hashed and compressed in a second thread while the first goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.contents import INDEXES, Contents
from registry_spooler.archive.image import ArchiveImage
from registry_spooler.archive.layout import find_images
from registry_spooler.archive.measure import NOTHING_EXPECTED, Expectation
from registry_spooler.archive.member import Member, require_file, shown
from registry_spooler.archive.reader import MemberOpener, MemberReader, member_reader
from registry_spooler.archive.reel import Part, Reel
from registry_spooler.archive.source import Feed, FileFeed
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError, SpoolerError
from registry_spooler.manifest import Descriptor, Manifest
from registry_spooler.result import LeftOut
from registry_spooler.threads import in_worker

_HEAD_BYTES: Final = 512
_BATCHES_AHEAD: Final = 0

Batch = list[Part] | SpoolerError | None
"""Parts, what went wrong, or the end."""


class StreamedArchive:
    """An archive that is read once. What is not kept or read of a member before the next one is skipped.

    One task at a time reads; holds at most four batches of 2 MiB, and what is kept.
    """

    def __init__(self, feed: Feed, reel: Reel, batches: ObjectReceiveStream[Batch]) -> None:
        self._feed = feed
        self._reel = reel
        self._batches = batches
        self._parts: deque[Part] = deque()
        self._contents = Contents()
        self._current: Member | None = None
        self._opened = False
        self._at_end = False
        self._failure: SpoolerError | None = None
        self._part: Part | None = None
        """The part of the current member that comes next; None when all of it has been taken."""

    @property
    def rereadable(self) -> bool:
        """Can the same source be opened again?"""
        return isinstance(self._feed, FileFeed)

    @property
    def position(self) -> int:
        """How many bytes of the source have been read."""
        return self._feed.position

    def members(self) -> AsyncIterator[Member]:
        """The members, in order, once. At the end all of the source has been read and its checksums hold."""
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Member:
        while self._part is not None:
            await self._advance()
        await self._fetch()
        if self._part is None:
            raise StopAsyncIteration
        member = self._part.member
        assert member is not None
        self._contents.add(member, self._part.volume)
        self._current, self._opened = member, False
        return member

    @property
    def head(self) -> bytes:
        """The first bytes (up to 512) of the current member, to `sniff` and to tell JSON by."""
        return b"" if self._part is None else self._part.data[:_HEAD_BYTES]

    @property
    def is_document(self) -> bool:
        """Does the current member look like one to `keep`: JSON, and within the limits?"""
        member = self._current
        if member is None or not self._contents.may_keep(member):
            return False
        name = member.path.rpartition("/")[2]
        return name in INDEXES or name == "oci-layout" or self.head.lstrip()[:1] in (b"{", b"[")

    async def keep(self) -> bytes | None:
        """Keep the current member for `images` and `content`; None when it is over the limits."""
        member = self._take_current()
        if not self._contents.may_keep(member):
            self._opened = False
            return None
        pieces: list[bytes] = []
        while self._part is not None:
            pieces.append(self._part.data)
            await self._advance()
        content = b"".join(pieces)
        self._contents.keep(member, content)
        return content

    def blob(
        self,
        *,
        compression: Compression = Compression.NONE,
        expect: Expectation = NOTHING_EXPECTED,
        inflate: bool = True,
        hashes: bool = True,
    ) -> MemberOpener:
        """The current member's bytes, once: a second opening raises RuntimeError. `hashes`: see `Passing`."""
        current = self._current

        @asynccontextmanager
        async def opener() -> AsyncIterator[MemberReader]:
            member = self._take_current()
            if member is not current:
                raise RuntimeError("the member has gone by")
            require_file(member)
            origin = _PartOrigin(member.size, part=lambda: self._part, advance=self._advance)
            yield member_reader(
                origin,
                compression=compression,
                expect=expect,
                inflate=inflate,
                hashes=hashes,
                name=shown(member.path),
            )

        return opener

    async def images(self) -> tuple[ArchiveImage, ...]:
        """What the archive holds, from what was kept; to be asked after the last member."""
        if not self._at_end:
            raise RuntimeError("the images are known after the last member")
        return await in_worker(find_images, self._contents)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Entries of the index that belong to no image; known when the images are."""
        return tuple(self._contents.left_out)

    async def content(self, digest: Digest) -> bytes | None:
        """A kept manifest's or config's bytes; None when the archive lacks it or it was not kept."""
        return await in_worker(self._contents.content, digest)

    async def manifest(self, descriptor: Descriptor) -> Manifest | None:
        """The manifest that a descriptor points to, read once; None when the archive lacks it or it was not kept."""
        return await in_worker(self._contents.manifest, descriptor)

    def find(self, digest: Digest) -> Member | None:
        """The member that holds a blob, by its path; None when it has not come by."""
        return self._contents.find(digest)

    def missing(self, what: str) -> ArchiveError:
        """The error for a member that is not there: `incomplete` when the tar has no end marker."""
        return self._contents.missing(what)

    def _take_current(self) -> Member:
        if self._current is None or self._opened:
            raise RuntimeError("a member of a stream is read once")
        self._opened = True
        return self._current

    async def _advance(self) -> None:
        """Go on to the next part of the current member, or behind its end."""
        last = self._part is None or self._part.last
        self._part = None
        if not last:
            await self._fetch()

    async def _fetch(self) -> None:
        """Make the next part the current one; leave it None at the end of the archive."""
        while not self._parts and not self._at_end:
            if self._failure is not None:
                raise self._failure
            batch = await self._batches.receive()
            if isinstance(batch, SpoolerError):
                self._failure = batch
                raise batch
            if batch is None:
                self._at_end = True
                self._contents.complete = self._reel.ended
            else:
                self._parts.extend(batch)
        self._part = self._parts.popleft() if self._parts else None


class _PartOrigin:
    """The current member of a stream, as an origin of pieces."""

    seekable = False

    def __init__(self, size: int, *, part: Callable[[], Part | None], advance: Callable[[], Awaitable[None]]) -> None:
        self._part = part
        self._advance = advance
        self.size = size
        self.position = 0

    async def wait(self) -> None:
        """See `Origin.wait`."""
        if self.position:
            await self._advance()

    def take(self, count: int) -> bytes:
        """See `Origin.take`."""
        part = self._part()
        assert part is not None
        assert len(part.data) <= count
        self.position += len(part.data)
        return part.data


@asynccontextmanager
async def stream(feed: Feed, *, window_max_bytes: int) -> AsyncIterator[StreamedArchive]:
    """Read ahead of the consumer for the time of an `async with`."""
    failure: Exception | None = None
    reel = Reel(feed, window_max_bytes=window_max_bytes)
    send, receive = anyio.create_memory_object_stream[Batch](_BATCHES_AHEAD)
    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(_read_ahead, reel, send)
        try:
            yield StreamedArchive(feed, reel, receive)
        except Exception as exc:  # noqa: BLE001 - raised below: from in here the task group would wrap it
            failure = exc
        finally:
            feed.stop()
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _read_ahead(reel: Reel, batches: ObjectSendStream[Batch]) -> None:
    try:
        while not reel.finished:
            await batches.send(await in_worker(reel.next_batch))
        await batches.send(None)
    except SpoolerError as exc:
        await batches.send(exc)
