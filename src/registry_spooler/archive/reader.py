"""Blobs on their way out of an archive: the asynchronous rim around `measure`.

Flow of `read`: wait until the origin has a piece (a stream's comes from the thread that decompresses; a file's is
always there), then one hand-off to a thread that takes it, hashes it, and compresses it if asked to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.measure import Deflating, Expectation, Passing
from registry_spooler.archive.member import shown
from registry_spooler.archive.source import FileSource
from registry_spooler.blob import PIECE_BYTES, Measured
from registry_spooler.errors import ArchiveError
from registry_spooler.threads import in_worker

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Origin(Protocol):
    """Where a member's bytes come from, PIECE_BYTES at a time but for the last.

    `position` is that of the next byte within the member, `size` the member's, both in bytes.
    """

    position: int
    size: int
    seekable: bool

    async def wait(self) -> None:
        """Return when `take` has a piece, or the member has ended."""

    def take(self, count: int) -> Buffer:
        """The next piece, of `count` bytes but at the end; called in a thread."""


class FileOrigin:
    """A range of a regular file."""

    seekable = True

    def __init__(self, source: FileSource, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self.size = size
        self.position = 0

    async def wait(self) -> None:
        """See `Origin.wait`."""

    def take(self, count: int) -> bytes:
        """See `Origin.take`."""
        piece = self._source.read_at(self._offset + self.position, min(count, self.size - self.position))
        self.position += len(piece)
        return piece


class MemberReader:
    """A `BlobReader` over one member, that also tells what it found inside."""

    def __init__(self, origin: Origin, codec: Passing | Deflating) -> None:
        self._origin = origin
        self._codec = codec
        self._fed = 0
        self._ready: deque[Buffer] = deque()
        self._measured: Measured | None = None

    @property
    def size(self) -> int | None:
        """See `BlobReader.size`."""
        return self._origin.size if isinstance(self._codec, Passing) else None

    @property
    def rewindable(self) -> bool:
        """See `BlobReader.rewindable`."""
        return self._origin.seekable and isinstance(self._codec, Passing)

    @property
    def measured(self) -> Measured:
        """See `BlobReader.measured`; `diff_id` is None when `flaw` is not."""
        if self._measured is None:
            raise RuntimeError("the blob has not been read to its end")
        return self._measured

    @property
    def consumed(self) -> int:
        """How many of the member's own bytes have been read so far; never less than before."""
        return self._fed

    @property
    def compression(self) -> Compression:
        """What the wire form is: compressed by us, or sniffed from the first piece (NONE before it)."""
        return self._codec.compression

    @property
    def flaw(self) -> ArchiveError | None:
        """What is wrong with the compressed data inside, when nobody expected it to be sound."""
        return self._codec.flaw

    async def read(self) -> Buffer:
        """See `BlobReader.read`."""
        while not self._ready and not self._ended:
            if not self._codec.busy:
                await self._origin.wait()
            await in_worker(self._step)
        return self._ready.popleft() if self._ready else b""

    async def rewind(self, offset: int) -> None:
        """See `BlobReader.rewind`."""
        if not self.rewindable or not 0 <= offset <= self._origin.position:
            raise RuntimeError(f"cannot go back to byte {offset} here")
        self._ready.clear()
        self._origin.position = offset

    @property
    def _ended(self) -> bool:
        return self._measured is not None and self._origin.position == self._origin.size

    def _step(self) -> None:
        if self._codec.busy:
            self._codec.work()
        elif self._origin.position < self._fed:
            # Read again after a rewind: it has been hashed, and counts once.
            self._ready.append(self._origin.take(min(PIECE_BYTES, self._fed - self._origin.position)))
        elif self._origin.position < self._origin.size:
            self._ready.extend(self._codec.feed(self._origin.take(PIECE_BYTES)))
            self._fed = self._origin.position
        if self._measured is None and self._fed == self._origin.size and not self._codec.busy:
            rest, self._measured = self._codec.finish()
            self._ready.extend(rest)


MemberOpener = Callable[[], AbstractAsyncContextManager[MemberReader]]
"""A `BlobOpener`."""


def member_reader(
    origin: Origin, *, compression: Compression, expect: Expectation, inflate: bool, hashes: bool, name: str
) -> MemberReader:
    """A reader that passes the origin's bytes on (NONE), or compresses them."""
    if compression is not Compression.NONE:
        return MemberReader(origin, Deflating(expect, compression, name=name))
    if expect.size is not None and origin.size != expect.size:
        raise ArchiveError(f"it has {origin.size:,} bytes, not {expect.size:,}", where=name)
    return MemberReader(origin, Passing(expect, inflate=inflate, hashes=hashes, name=name))


def range_blob(
    source: FileSource,
    offset: int,
    size: int,
    *,
    compression: Compression,
    expect: Expectation,
    inflate: bool,
    hashes: bool = True,
    name: str,
) -> MemberOpener:
    """A range of a file as a blob, to be opened as often as needed; rewindable when it goes out as it is."""

    @asynccontextmanager
    async def opener() -> AsyncIterator[MemberReader]:
        origin = FileOrigin(source, offset, size)
        yield member_reader(origin, compression=compression, expect=expect, inflate=inflate, hashes=hashes, name=name)

    return opener


def file_blob(source: FileSource, *, compression: Compression = Compression.GZIP) -> MemberOpener:
    """A whole file as one blob: compressed, or as it is (NONE). `measured.diff_id` is the digest of its bytes."""
    return range_blob(
        source,
        0,
        source.size,
        compression=compression,
        expect=Expectation(),
        inflate=False,
        name=shown(source.name),
    )
