"""What happens to a member's bytes on their way out: hashed and checked, or compressed as well.

Plain code, one piece at a time. `Passing` gives out what it is fed, and inflates compressed data beside it into
a second hash: so the checksums inside and the diff ID are checked in the same pass. `Deflating` gives out
gzip or zstd.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry_spooler.archive.compression import Compression, Deflater, sniff
from registry_spooler.archive.inflation import Inflater
from registry_spooler.blob import PIECE_BYTES, Measured
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError, ArchiveTruncated

if TYPE_CHECKING:
    from typing_extensions import Buffer

_INFLATE_BYTES: Final = 256 << 10
"""Hashed while it is still in the processor's cache: 7 % faster than a megabyte at a time, for the whole push."""
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
    """A digest in the making, and how many bytes have gone into it."""

    def __init__(self, expected: Digest | None) -> None:
        self.algorithm = expected.algorithm if expected else "sha256"
        self._hash = hashlib.new(self.algorithm)
        self.size = 0

    def update(self, piece: Buffer) -> None:
        """Add bytes."""
        self._hash.update(piece)
        self.size += memoryview(piece).nbytes

    @property
    def digest(self) -> Digest:
        """Of what has been added."""
        return Digest(self.algorithm, self._hash.hexdigest())


class Unhashed:
    """In the place of a `Hash`: a digest that is taken as announced, and only the bytes counted."""

    def __init__(self, announced: Digest) -> None:
        self.algorithm = announced.algorithm
        self.digest = announced
        self.size = 0

    def update(self, piece: Buffer) -> None:
        """Count bytes."""
        self.size += memoryview(piece).nbytes


class Passing:
    """A member that goes out as it is.

    Without `hashes`, whoever takes the bytes checks the digest, when one is expected; `measured` then repeats it.
    """

    def __init__(self, expect: Expectation, *, inflate: bool, hashes: bool, name: str) -> None:
        self.compression = Compression.NONE
        self.flaw: ArchiveError | None = None
        self._expect = expect
        self._inflate = inflate
        self._name = name
        self._wire = Hash(expect.digest) if hashes or expect.digest is None else Unhashed(expect.digest)
        self._inner = Hash(expect.diff_id)
        self._inflater: Inflater | None = None
        self._owed: Buffer = b""

    @property
    def busy(self) -> bool:
        """Is there more to `work` on before the next `feed`?"""
        return self._inflater is not None and self.flaw is None and (bool(self._owed) or not self._inflater.needs_input)

    def feed(self, piece: Buffer) -> list[Buffer]:
        """Take a piece; what goes out for it."""
        if not self._wire.size:
            self._begin(piece)
        self._wire.update(piece)
        if self._inflater is not None and self.flaw is None:
            self._owed = piece
            self.work()
        elif self._hashes_twice:
            self._inner.update(piece)
        return [piece]

    @property
    def _hashes_twice(self) -> bool:
        """Is the diff ID of plain bytes asked for in another algorithm than the digest?"""
        expected = self._expect.diff_id
        return (
            expected is not None and self.compression is Compression.NONE and expected.algorithm != self._wire.algorithm
        )

    def _begin(self, piece: Buffer) -> None:
        self.compression = sniff(piece)
        if self._inflate and self.compression in (Compression.GZIP, Compression.ZSTD):
            self._inflater = Inflater(self.compression, name=self._name)

    def work(self) -> None:
        """Inflate some of what was fed, within a bound of time."""
        inflater, inflated = self._inflater, 0
        assert inflater is not None
        try:
            while self.busy and inflated < _WORK_BYTES:
                data, self._owed = self._owed, b""
                output = inflater.inflate(data, _INFLATE_BYTES)
                self._inner.update(output)
                inflated += len(output)
        except ArchiveError as exc:
            self._found(exc)

    def finish(self) -> tuple[list[Buffer], Measured]:
        """Check everything; what is left to go out, and what it all came to."""
        if self._inflater is not None and self.flaw is None:
            try:
                self._inflater.finish()
            except ArchiveError as exc:
                # The member is whole, so the archive is not cut off: the layer in it was.
                self._found(ArchiveError(exc.reason, where=exc.where) if isinstance(exc, ArchiveTruncated) else exc)
        measured = Measured(digest=self._wire.digest, size=self._wire.size, diff_id=self._diff_id())
        check(self._expect, measured, name=self._name, inflated=self._inflate)
        return [], measured

    def _diff_id(self) -> Digest | None:
        if self._inflater is not None:
            return self._inner.digest if self.flaw is None else None
        if self.compression is Compression.NONE:
            return self._inner.digest if self._hashes_twice else self._wire.digest
        return None

    def _found(self, flaw: ArchiveError) -> None:
        self.flaw = flaw
        if self._expect.diff_id is not None or self._expect.compression is not None:
            raise flaw


class Deflating:
    """A member that is compressed on its way out."""

    flaw: ArchiveError | None = None
    busy = False

    def __init__(self, expect: Expectation, compression: Compression, *, name: str) -> None:
        self.compression = compression
        self._expect = expect
        self._name = name
        self._deflater = Deflater(compression)
        self._inner = Hash(expect.diff_id)
        self._wire = Hash(expect.digest)

    def feed(self, piece: Buffer) -> list[Buffer]:
        """Take a piece of DEFLATE_BLOCK_BYTES (a shorter one is the last); what goes out by now."""
        self._inner.update(piece)
        return self._out(self._deflater.deflate(piece))

    def work(self) -> None:
        """There is never any left."""

    def finish(self) -> tuple[list[Buffer], Measured]:
        """Check everything; what is left to go out, and what it all came to."""
        rest = self._out(self._deflater.finish())
        measured = Measured(digest=self._wire.digest, size=self._wire.size, diff_id=self._inner.digest)
        check(self._expect, measured, name=self._name, inflated=True)
        return rest, measured

    def _out(self, output: bytes) -> list[Buffer]:
        self._wire.update(output)
        if len(output) <= PIECE_BYTES:
            return [output] if output else []
        view = memoryview(output)  # what cannot be compressed grows a little
        return [view[:PIECE_BYTES], view[PIECE_BYTES:]]


def check(expect: Expectation, measured: Measured, *, name: str, inflated: bool) -> None:
    """Compare; ArchiveError says what is otherwise. `inflated`: has the diff ID been looked for?"""
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
