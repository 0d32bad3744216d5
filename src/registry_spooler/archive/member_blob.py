"""A member's bytes on their way out of an archive: hashed and checked, or compressed as well.

`PassThrough` gives out what it is fed, and inflates compressed data beside it into a second hash, so that the
checksums inside and the diff ID are checked in the same pass. `Compress` gives out gzip or zstd, `Recompress` too, of
what it inflates. All are plain code.

Flow of `MemberReader.read`: wait until there is a piece (a stream's comes from the thread that decompresses, a file's
is always there), then one hand-off to a thread that takes it, hashes it, and compresses it if asked to.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from registry_spooler.aio import in_worker
from registry_spooler.archive.compression import DEFLATE_BLOCK_BYTES, Compression, Deflater, Inflater, sniff
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.tar_header import Kind, Member, shown
from registry_spooler.errors import ArchiveError, ArchiveTruncated
from registry_spooler.oci.blob import PIECE_BYTES, Measured
from registry_spooler.oci.digest import Digest

if TYPE_CHECKING:
    from typing_extensions import Buffer


_INFLATE_BYTES: Final = 256 << 10
"""Hashed while it is still in the processor's cache: 7 % faster than a megabyte at a time, for the whole push."""
_AHEAD_BYTES: Final = 8 << 20
"""How far ahead the disk reads a member."""
_WORK_BYTES: Final = 64 << 20
"""How much is inflated before a cancellation gets its chance: 128 KiB of zstd can hold gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a blob must turn out to be; the reader raises ArchiveError at its last read at the latest.

    `size` (bytes) and `digest` are of the wire form, `diff_id` of the uncompressed bytes. With a `compression`
    the member is a layer, and compressed data in it must be sound; it may be of another kind, since
    containerd calls every compressed layer gzip, and every runtime looks at the bytes.
    """

    digest: Digest | None = None
    size: int | None = None
    diff_id: Digest | None = None
    compression: Compression | None = None


NOTHING_EXPECTED: Final = Expectation()


class Hash:
    """A digest in the making, and how many bytes have gone into it; if `announced`, the expected one is believed."""

    def __init__(self, expected: Digest | None, *, announced: bool = False) -> None:
        self.algorithm = expected.algorithm if expected else "sha256"
        self._announced = expected if announced else None
        self._hash = hashlib.new(self.algorithm)
        self.size = 0

    def update(self, piece: Buffer) -> None:
        """Add bytes."""
        if self._announced is None:
            self._hash.update(piece)
        self.size += memoryview(piece).nbytes

    @property
    def digest(self) -> Digest:
        """The digest of what has been added."""
        return self._announced or Digest(self.algorithm, self._hash.hexdigest())


class PassThrough:
    """A member that goes out as it is.

    Without `hashes`, whoever takes the bytes checks the digest, when one is expected; `measured` then repeats it.
    """

    def __init__(self, expect: Expectation, *, inflate: bool, hashes: bool, name: str) -> None:
        self.compression = Compression.NONE
        self.error: ArchiveError | None = None
        """What is wrong with the compressed data inside, when nobody expected it to be sound."""
        self._expect = expect
        self._inflate = inflate
        self._name = name
        self._wire = Hash(expect.digest, announced=not hashes)
        self._inner = Hash(expect.diff_id)
        self._inflater: Inflater | None = None
        self._pending: Buffer = b""

    @property
    def busy(self) -> bool:
        """Return whether there is more to `work` on before the next `feed`."""
        if self._inflater is None or self.error is not None:
            return False
        return bool(self._pending) or not self._inflater.needs_input

    def feed(self, piece: Buffer) -> list[Buffer]:
        """Take a piece; return what goes out for it."""
        if not self._wire.size:
            self._begin(piece)
        self._wire.update(piece)
        if self._inflater is not None and self.error is None:
            self._pending = piece
            self.work()
        elif self._hashes_twice:
            self._inner.update(piece)
        return [piece]

    @property
    def _hashes_twice(self) -> bool:
        """Return whether the diff ID of plain bytes is expected in another algorithm than the digest."""
        expected = self._expect.diff_id
        return (
            expected is not None and self.compression is Compression.NONE and expected.algorithm != self._wire.algorithm
        )

    def _begin(self, piece: Buffer) -> None:
        self.compression = sniff(piece)
        if self._inflate and self.compression in (Compression.GZIP, Compression.ZSTD):
            self._inflater = Inflater(self.compression, name=self._name)

    def work(self) -> list[Buffer]:
        """Inflate some of what was fed, within a bound of time; nothing goes out for it."""
        inflater, inflated = self._inflater, 0
        assert inflater is not None
        try:
            while self.busy and inflated < _WORK_BYTES:
                data, self._pending = self._pending, b""
                output = inflater.inflate(data, _INFLATE_BYTES)
                self._inner.update(output)
                inflated += len(output)
        except ArchiveError as exc:
            self._set_error(exc)
        return []

    def finish(self) -> tuple[list[Buffer], Measured]:
        """Check everything; return what is left to go out, and what all of it measures."""
        if self._inflater is not None and self.error is None:
            try:
                self._inflater.finish()
            except ArchiveTruncated as exc:
                self._set_error(_cut_inside(exc))
            except ArchiveError as exc:
                self._set_error(exc)
        measured = Measured(digest=self._wire.digest, size=self._wire.size, diff_id=self._diff_id())
        check(self._expect, measured, name=self._name, inflated=self._inflate)
        return [], measured

    def _diff_id(self) -> Digest | None:
        if self._inflater is not None:
            return self._inner.digest if self.error is None else None
        if self.compression is Compression.NONE:
            return self._inner.digest if self._hashes_twice else self._wire.digest
        return None

    def _set_error(self, error: ArchiveError) -> None:
        self.error = error
        if self._expect.diff_id is not None or self._expect.compression is not None:
            raise error


class Compress:
    """A member that is compressed on its way out. Without `hashes_plain` whoever gives it has checked the diff ID."""

    error: ArchiveError | None = None

    def __init__(self, expect: Expectation, compression: Compression, *, name: str, hashes_plain: bool = True) -> None:
        self.compression = compression
        self.expect = expect
        self.on_plain: Callable[[Buffer], None] = lambda _: None
        """Called in a thread with each piece that is about to be compressed."""
        self._name = name
        self._deflater = Deflater(compression)
        self._inner = Hash(expect.diff_id, announced=not hashes_plain)
        self._wire = Hash(expect.digest)

    @property
    def busy(self) -> bool:
        """Return whether there is more to `work` on before the next `feed`."""
        return False

    def feed(self, piece: Buffer) -> list[Buffer]:
        """Take a piece of DEFLATE_BLOCK_BYTES (a shorter one is the last); return what goes out by now."""
        self.on_plain(piece)
        self._inner.update(piece)
        return self._out(self._deflater.deflate(piece))

    def work(self) -> list[Buffer]:
        """Return what goes out for more of what was fed: there is never any left."""
        return []

    def finish(self) -> tuple[list[Buffer], Measured]:
        """Check everything; return what is left to go out, and what all of it measures."""
        rest = self._out(self._deflater.finish())
        measured = Measured(digest=self._wire.digest, size=self._wire.size, diff_id=self._inner.digest)
        check(self.expect, measured, name=self._name, inflated=True)
        return rest, measured

    def _out(self, output: bytes) -> list[Buffer]:
        self._wire.update(output)
        if len(output) <= PIECE_BYTES:
            return [output] if output else []
        view = memoryview(output)  # what cannot be compressed grows a little
        return [view[:PIECE_BYTES], view[PIECE_BYTES:]]


class Recompress(Compress):
    """A gzip or zstd member that is compressed anew on its way out, as its plain bytes would have been."""

    def __init__(self, expect: Expectation, compression: Compression, *, inside: Compression, name: str) -> None:
        super().__init__(expect, compression, name=name)
        self._inflater = Inflater(inside, name=name)
        self._pending: Buffer = b""
        self._block = bytearray()

    @property
    def busy(self) -> bool:
        """Return whether there is more to `work` on before the next `feed`."""
        return bool(self._pending) or not self._inflater.needs_input

    def feed(self, piece: Buffer) -> list[Buffer]:
        """Take a piece; return what goes out by now."""
        self._pending = piece
        return self.work()

    def work(self) -> list[Buffer]:
        """Inflate up to a block, and compress it when it is full."""
        while self.busy and len(self._block) < DEFLATE_BLOCK_BYTES:
            data, self._pending = self._pending, b""
            self._block += self._inflater.inflate(data, DEFLATE_BLOCK_BYTES - len(self._block))
        return self._compress_block() if len(self._block) == DEFLATE_BLOCK_BYTES else []

    def finish(self) -> tuple[list[Buffer], Measured]:
        """Check everything; return what is left to go out, and what all of it measures."""
        try:
            self._inflater.finish()
        except ArchiveTruncated as exc:
            raise _cut_inside(exc) from exc
        last = self._compress_block() if self._block else []
        rest, measured = super().finish()
        return [*last, *rest], measured

    def _compress_block(self) -> list[Buffer]:
        block, self._block = self._block, bytearray()
        return super().feed(block)


def _cut_inside(error: ArchiveTruncated) -> ArchiveError:
    """The member is whole, so the archive is not cut off: the layer in it was."""
    return ArchiveError(error.reason, where=error.where)


def check(expect: Expectation, measured: Measured, *, name: str, inflated: bool) -> None:
    """Compare; ArchiveError says what differs. `inflated`: compressed data were inflated to find the diff ID."""
    if expect.size is not None and measured.size != expect.size:
        raise ArchiveError(f"it has {measured.size:,} bytes, not {expect.size:,}", where=name)
    if expect.digest is not None and measured.digest != expect.digest:
        raise ArchiveError(f"its digest is {measured.digest}, not {expect.digest}", where=name)
    if expect.diff_id is None or measured.diff_id == expect.diff_id or (measured.diff_id is None and not inflated):
        return
    raise ArchiveError(
        f"its diff ID is {measured.diff_id}, but the image's config says {expect.diff_id}"
        if measured.diff_id
        else "it is compressed in a way that layers may not be",
        where=name,
    )


Codec = PassThrough | Compress


def codec_for(
    member: Member,
    *,
    compression: Compression,
    inside: Compression = Compression.NONE,
    expect: Expectation,
    inflate: bool,
    hashes: bool,
) -> Codec:
    """Return what passes a member's bytes on (NONE), or compresses them. `hashes`: see `PassThrough`.

    `inside` is the compression that is undone first.
    """
    name = shown(member.path)
    if inside is not Compression.NONE:
        return Recompress(expect, compression, inside=inside, name=name)
    if compression is not Compression.NONE:
        return Compress(expect, compression, name=name)
    if expect.size is not None and member.size != expect.size:
        raise ArchiveError(f"it has {member.size:,} bytes, not {expect.size:,}", where=name)
    return PassThrough(expect, inflate=inflate, hashes=hashes, name=name)


class MemberReader(ABC):
    """A `BlobReader` over one member, that also tells what it found inside."""

    _seekable: ClassVar[bool]

    def __init__(self, member: Member, codec: Codec) -> None:
        self._total = member.size
        self._codec = codec
        self._position = 0
        """Of the next byte within the member."""
        self._fed = 0
        self._ready: deque[Buffer] = deque()
        self._measured: Measured | None = None
        self.on_read: Callable[[int], None] = lambda _: None
        """Called after every read with the number of the member's own bytes it took; what is read again counts once."""

    @abstractmethod
    async def _wait(self) -> None:
        """Return when `_take` has a piece, or the member has ended."""

    @abstractmethod
    def _take(self, count: int) -> Buffer:
        """Return the next piece and move on: `count` bytes, fewer only at the end. Called in a thread."""

    @property
    def size(self) -> int | None:
        """See `BlobReader.size`."""
        return self._total if isinstance(self._codec, PassThrough) else None

    @property
    def rewindable(self) -> bool:
        """See `BlobReader.rewindable`."""
        return self._seekable and isinstance(self._codec, PassThrough)

    @property
    def measured(self) -> Measured:
        """See `BlobReader.measured`; `diff_id` is None when `error` is not."""
        if self._measured is None:
            raise RuntimeError("the blob has not been read to its end")
        return self._measured

    @property
    def compression(self) -> Compression:
        """What the wire form is: compressed by us, or sniffed from the first piece (NONE before it)."""
        return self._codec.compression

    @property
    def member_bytes(self) -> int:
        """The size of the member itself."""
        return self._total

    @property
    def compressed_diff_id(self) -> Digest | None:
        """The diff ID that is expected of a layer which is compressed here; None for all else."""
        return self._codec.expect.diff_id if isinstance(self._codec, Compress) else None

    def show_plain(self, on_plain: Callable[[Buffer], None]) -> None:
        """Have `on_plain` called in a thread with each piece that is about to be compressed."""
        if isinstance(self._codec, Compress):
            self._codec.on_plain = on_plain

    @property
    def error(self) -> ArchiveError | None:
        """What is wrong with the compressed data inside, when nobody expected it to be sound."""
        return self._codec.error

    async def read(self) -> Buffer:
        """See `BlobReader.read`."""
        fed_before = self._fed
        while not self._ready and not (self._measured is not None and self._position == self._total):
            if not self._codec.busy:
                await self._wait()
            await in_worker(self._step)
        self.on_read(self._fed - fed_before)
        return self._ready.popleft() if self._ready else b""

    async def rewind(self, offset: int) -> None:
        """See `BlobReader.rewind`."""
        if not self.rewindable or not 0 <= offset <= self._position:
            raise RuntimeError(f"cannot go back to byte {offset} here")
        self._ready.clear()
        self._position = offset

    def _step(self) -> None:
        if self._codec.busy:
            self._ready.extend(self._codec.work())
        elif self._position < self._fed:
            # Read again after a rewind: it has been hashed, and counts once.
            self._ready.append(self._take(min(PIECE_BYTES, self._fed - self._position)))
        elif self._position < self._total:
            piece = self._take(PIECE_BYTES)
            self._ready.extend(self._codec.feed(piece))
            self._fed = self._position
        if self._measured is None and self._fed == self._total and not self._codec.busy:
            rest, self._measured = self._codec.finish()
            self._ready.extend(rest)


class FileMember(MemberReader):
    """A member that is a range of a regular file."""

    _seekable = True

    def __init__(self, source: FileSource, member: Member, codec: Codec) -> None:
        super().__init__(member, codec)
        self._source = source
        self._offset = member.offset
        self._foretold = 0
        """Up to where the disk has been told that it is going to be read."""

    async def _wait(self) -> None:
        """Return at once."""

    def _take(self, count: int) -> bytes:
        if self._foretold < min(self._position + _AHEAD_BYTES // 2, self._total):
            ahead = min(_AHEAD_BYTES, self._total - self._foretold)
            self._source.expect_read(self._offset + self._foretold, ahead)
            self._foretold += ahead
        piece = self._source.read_at(self._offset + self._position, min(count, self._total - self._position))
        self._position += len(piece)
        return piece


MemberOpener = Callable[[], AbstractAsyncContextManager[MemberReader]]
"""A `BlobOpener`."""


def file_member(source: FileSource, member: Member, codec: Callable[[], Codec]) -> MemberOpener:
    """Return a range of a file as a blob, to be opened as often as needed; rewindable when it goes out as it is."""

    @asynccontextmanager
    async def opener() -> AsyncIterator[MemberReader]:
        yield FileMember(source, member, codec())

    return opener


def file_blob(source: FileSource, *, compression: Compression = Compression.GZIP) -> MemberOpener:
    """Return a whole file as one blob, compressed or as it is (NONE). `measured.diff_id` is the digest of its bytes."""
    member = Member(source.name, Kind.FILE, source.size, 0)
    codec = partial(codec_for, member, compression=compression, expect=NOTHING_EXPECTED, inflate=False, hashes=True)
    return file_member(source, member, codec)
