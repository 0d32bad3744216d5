"""Compressed archives and pipes: members come by once, front to back.

Plain code for the thread that decompresses, one call per batch. Small members come many to a batch, so that a
hundred thousand of them cost few hand-offs; a large member comes in pieces of PIECE_BYTES, counted from
its first byte, so that compressing it gives the same as when it is read from a plain tar.

Flow: a task has the next batch of members read and decompressed in a thread, one batch ahead of the consumer (the
stream between them holds one more). The consumer steps through the batch at hand without leaving the loop,
and large members are hashed and compressed in a second thread while the first goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from registry_spooler.aio import in_own_thread, in_worker
from registry_spooler.archive.compression import Compression, Inflater, TrailingGarbage
from registry_spooler.archive.contents import INDEXES, Contents
from registry_spooler.archive.detect import check_inside, recognise
from registry_spooler.archive.formats.image import ArchiveImage
from registry_spooler.archive.formats.layout import find_images
from registry_spooler.archive.limits import TAIL_MAX_BYTES, WINDOW_MAX_BYTES
from registry_spooler.archive.member_blob import (
    NOTHING_EXPECTED,
    Codec,
    Expectation,
    MemberOpener,
    MemberReader,
    codec_for,
)
from registry_spooler.archive.source import Feed, FileFeed, PipeFeed
from registry_spooler.archive.tar import StreamByteReader, TarReader
from registry_spooler.archive.tar_header import BLOCK_BYTES, Member, require_file
from registry_spooler.errors import ArchiveError, SpoolerError
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.progress import LeftOut

_INPUT_BYTES: Final = 256 << 10
_BATCH_PARTS: Final = 1024
_DRAIN_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class MemberPart:
    """Some of a member's data. `member` is set on its first part, `last` on its last."""

    member: Member | None
    data: bytes
    last: bool
    volume: int


class InflatedByteReader:
    """A stream, decompressed. `check` is called before each piece of output, and may raise."""

    def __init__(
        self, data: StreamByteReader, compression: Compression, check: Callable[[], None], window_max_bytes: int
    ) -> None:
        self._data = data
        self._check = check
        self._inflater = Inflater(compression, window_max_bytes=window_max_bytes)

    def read(self, count: int) -> bytes:
        """The next bytes, 1 to `count`; none at the end, after its checksums have been checked."""
        while True:
            self._check()
            data = b""
            if self._inflater.needs_input:
                data = self._data.read(_INPUT_BYTES)
                if not data:
                    self._inflater.finish()
                    return b""
            if output := self._inflater.inflate(data, count):
                return output


class MemberBatches:
    """Members and their data, batch by batch. Nothing is read before the first batch is asked for.

    `finished` turns true with the batch behind which there is nothing; `ended` says whether the tar's end marker
    has been seen.
    """

    def __init__(self, feed: Feed, *, window_max_bytes: int = WINDOW_MAX_BYTES) -> None:
        self._feed = feed
        self._window_max_bytes = window_max_bytes
        self._raw = StreamByteReader(feed.read)
        self._data = self._raw
        self._reader: TarReader | None = None
        self._left = 0
        self._behind_last = False
        self._tail_bytes = 0
        self._failure: SpoolerError | None = None
        self.ended = False
        self.finished = False

    def _begin(self) -> TarReader:
        """Look what it is, and get to the tar."""
        compression = recognise(self._raw.peek(BLOCK_BYTES))
        if compression is not Compression.NONE:
            self._data = StreamByteReader(
                InflatedByteReader(self._raw, compression, self._feed.check, self._window_max_bytes).read
            )
            check_inside(self._data.peek(BLOCK_BYTES), compression)
        return TarReader(self._data)

    def next_batch(self) -> list[MemberPart]:
        """The next parts: up to PIECE_BYTES of small members, or one piece of a large one. See `finished`.

        What goes wrong behind some parts is raised by the next call: members that are whole are good for something.
        """
        if self._failure is not None:
            raise self._failure
        if self._reader is None:
            self._reader = self._begin()
        parts: list[MemberPart] = []
        taken = 0
        while taken < PIECE_BYTES and len(parts) < _BATCH_PARTS and not self._behind_last:
            try:
                part = self._next_part(self._reader)
            except SpoolerError as exc:
                if not parts:
                    raise
                self._failure = exc
                break
            if part is None:
                self._behind_last, self.ended = True, self._reader.ended
                break
            parts.append(part)
            taken += len(part.data)
        if self._behind_last and not parts:
            self._drain()
        return parts

    def _next_part(self, reader: TarReader) -> MemberPart | None:
        member = None
        if not self._left:
            member = reader.next()
            if member is None:
                return None
            self._left = member.size
        wanted = min(PIECE_BYTES, self._left)
        data = self._data.read(wanted)
        self._left -= wanted
        if len(data) < wanted:
            reader.next()  # raises: the member is cut off
        return MemberPart(member, data, not self._left, reader.archives)

    def _drain(self) -> None:
        """Read what is behind the end: padding, garbage, and the checksums of the compressed stream."""
        if self._tail_bytes > TAIL_MAX_BYTES:
            raise ArchiveError(f"more than {TAIL_MAX_BYTES >> 20} MiB follow the end of the tar archive")
        try:
            skipped = self._data.skip(_DRAIN_BYTES)
            self._tail_bytes += skipped
            self.finished = skipped < _DRAIN_BYTES
        except TrailingGarbage:
            self.finished = True  # as behind a plain tar


_HEAD_BYTES: Final = 512
_BATCHES_AHEAD: Final = 0

Batch = list[MemberPart] | SpoolerError | None
"""Parts, what went wrong, or the end."""


class Archive:
    """What an archive holds, however it is read. Manifests and configs have at most 4 MiB."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    async def images(self) -> tuple[ArchiveImage, ...]:
        """Return the images; ArchiveError with a sentence for the user when there are none."""
        return await in_worker(find_images, self._contents)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Entries of the index that belong to no image; known when the images are."""
        return tuple(self._contents.left_out)

    async def content(self, digest: Digest) -> bytes | None:
        """Return a manifest's or a config's bytes, checked; None when the archive lacks it or did not keep it."""
        return await in_worker(self._contents.content, digest)

    async def manifest(self, descriptor: Descriptor) -> Manifest | None:
        """Return the manifest that a descriptor points to, read once; None as for `content`."""
        return await in_worker(self._contents.manifest, descriptor)

    def find(self, digest: Digest) -> Member | None:
        """Return the member that holds a blob, by its path; None when the archive lacks it."""
        return self._contents.find(digest)

    def missing(self, what: str) -> ArchiveError:
        """Return the error for a member that is not there: `incomplete` when the tar has no end marker."""
        return self._contents.missing(what)


class StreamedArchive(Archive):
    """An archive that is read once. What is not kept or read of a member before the next one is skipped.

    One task at a time reads; holds at most four batches of 2 MiB, and what is kept.
    """

    def __init__(self, feed: Feed, reader: MemberBatches, batches: ObjectReceiveStream[Batch]) -> None:
        super().__init__(Contents())
        self._feed = feed
        self._batch_reader = reader
        self._batches = batches
        self._parts: deque[MemberPart] = deque()
        self._current: Member | None = None
        self._opened = False
        self._at_end = False
        self._failure: SpoolerError | None = None
        self._part: MemberPart | None = None
        """The part of the current member that comes next; None when all of it has been taken."""

    @property
    def rereadable(self) -> bool:
        """Return whether the same source can be opened again."""
        return isinstance(self._feed, FileFeed)

    @property
    def position(self) -> int:
        """Return how many bytes of the source have been read."""
        return self._feed.position

    def members(self) -> AsyncIterator[Member]:
        """Return the members, in order, once. At the end all of the source has been read and its checksums hold."""
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
        """Return the first bytes (up to 512) of the current member, to `sniff` and to tell JSON by."""
        return b"" if self._part is None else self._part.data[:_HEAD_BYTES]

    @property
    def is_document(self) -> bool:
        """Return whether the current member looks like one to `keep`: JSON, and within the limits."""
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
        """The current member's bytes, once: a second opening raises RuntimeError. `hashes`: see `PassThrough`."""
        current = self._current

        @asynccontextmanager
        async def opener() -> AsyncIterator[MemberReader]:
            member = self._take_current()
            if member is not current:
                raise RuntimeError("the member has gone by")
            require_file(member)
            codec = codec_for(member, compression=compression, expect=expect, inflate=inflate, hashes=hashes)
            yield _StreamedMember(member, codec, part=lambda: self._part, advance=self._advance)

        return opener

    async def images(self) -> tuple[ArchiveImage, ...]:
        """See `Archive.images`; to be asked after the last member."""
        if not self._at_end:
            raise RuntimeError("the images are known after the last member")
        return await super().images()

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
                self._contents.complete = self._batch_reader.ended
            else:
                self._parts.extend(batch)
        self._part = self._parts.popleft() if self._parts else None


class _StreamedMember(MemberReader):
    """The current member of a stream."""

    _seekable = False

    def __init__(
        self,
        member: Member,
        codec: Codec,
        *,
        part: Callable[[], MemberPart | None],
        advance: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(member, codec)
        self._part = part
        self._advance = advance

    async def _wait(self) -> None:
        if self._position:
            await self._advance()

    def _take(self, count: int) -> bytes:
        part = self._part()
        assert part is not None
        assert len(part.data) <= count
        self._position += len(part.data)
        return part.data


@asynccontextmanager
async def stream(feed: Feed, *, window_max_bytes: int) -> AsyncIterator[StreamedArchive]:
    """Read ahead of the consumer for the time of an `async with`."""
    failure: Exception | None = None
    reader = MemberBatches(feed, window_max_bytes=window_max_bytes)
    send, receive = anyio.create_memory_object_stream[Batch](_BATCHES_AHEAD)
    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(_read_ahead, reader, send, in_own_thread if isinstance(feed, PipeFeed) else in_worker)
        try:
            yield StreamedArchive(feed, reader, receive)
        except Exception as exc:  # noqa: BLE001 - raised below: from in here the task group would wrap it
            failure = exc
        finally:
            feed.stop()
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _read_ahead(
    reader: MemberBatches,
    batches: ObjectSendStream[Batch],
    in_some_thread: Callable[[Callable[[], Batch]], Awaitable[Batch]],
) -> None:
    try:
        while not reader.finished:
            await batches.send(await in_some_thread(reader.next_batch))
        await batches.send(None)
    except SpoolerError as exc:
        await batches.send(exc)
