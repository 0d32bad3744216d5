"""Compression: recognised by the first bytes, undone piece by piece, and done the same way every time.

A `Deflater` is fed blocks of one constant size, whatever pieces its source gives: the output of isal (and of zstd)
depends on where its input is cut, and the same layer must have the same digest always.

One class for gzip, zstd, xz and bzip2, since their bindings share one interface. It reads the way the
tools do: members may follow each other (pigz, `cat a.gz b.gz`, zstd:chunked's skippable frames) with zero bytes
between them (tapes, xz padding).
"""

from __future__ import annotations

import bz2
import enum
import lzma
import sys
from typing import TYPE_CHECKING, Final, Protocol, cast

from isal import igzip_lib, isal_zlib

from registry_spooler.archive.limits import IDLE_MAX_BYTES, MEMBER_MEAN_MIN_BYTES, MEMBERS_COUNTED, WINDOW_MAX_BYTES
from registry_spooler.errors import ArchiveError, ArchiveTruncated
from registry_spooler.oci import mediatype

if TYPE_CHECKING:
    from typing_extensions import Buffer


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DEFLATE_BLOCK_BYTES: Final = 1 << 20
"""What a `Deflater` is fed at once. Another value gives every layer another digest."""

_GZIP_LEVEL: Final = 1
"""Of isal's 0 to 3. On system libraries: level 1 0.55 GB/s to 0.410 of the size, level 2 0.52 GB/s to 0.405."""

_GZIP_WRAPPER: Final = 31
"""zlib's `wbits` for a gzip header and trailer; isal leaves the time in it zero."""

_ZSTD_LEVEL: Final = 3

_RECIPE_LEVEL: Final = 9
"""On libraries and Python: level 9 29 MB/s to 0.223 of the size, 12 13 MB/s to 0.221, 19 1.3 MB/s to 0.199.

What 19 saves over 9 takes longer to make than to send, on all links above 0.3 Mbit/s.
"""
_RECIPE_OPERATIONS_LEVEL: Final = 15
RECIPE_WINDOW_BYTES: Final = 16 << 20
"""How far a recipe's literals refer back; what its reader has to hold in memory."""


class Compression(enum.Enum):
    """How bytes are compressed. The first three are what layers may be, and the values of `--compression`."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"

    @property
    def layer_media_type(self) -> str:
        """The OCI media type of a layer compressed so; ArchiveError for what layers may not be."""
        if self not in _LAYER_MEDIA_TYPES:
            raise ArchiveError(f"a layer is compressed with {self.value}; registries hold plain, gzip or zstd layers")
        return _LAYER_MEDIA_TYPES[self]


_LAYER_MEDIA_TYPES: Final = {
    Compression.NONE: mediatype.OCI_LAYER,
    Compression.GZIP: mediatype.OCI_LAYER_GZIP,
    Compression.ZSTD: mediatype.OCI_LAYER_ZSTD,
}

_MAGIC: Final = (
    (b"\x1f\x8b", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"\xfd7zXZ\0", Compression.XZ),
    (b"BZh", Compression.BZIP2),
)
MAGIC_BYTES: Final = 6
"""How many bytes `sniff` needs to be sure."""


def sniff(head: Buffer) -> Compression:
    """Tell from the first bytes; NONE when they are of no known compression.

    A zstd stream may begin with a skippable frame
    (https://www.rfc-editor.org/rfc/rfc8878#name-skippable-frames).
    """
    start = bytes(memoryview(head)[:MAGIC_BYTES])
    for magic, compression in _MAGIC:
        if start.startswith(magic):
            return compression
    if start[1:4] == b"\x2a\x4d\x18" and 0x50 <= start[0] <= 0x5F:
        return Compression.ZSTD
    return Compression.NONE


class Compressor(Protocol):
    """A stream in the making."""

    def compress(self, data: Buffer, /) -> bytes:
        """Take data; what comes out for it."""

    def flush(self) -> bytes:
        """The rest."""


class Deflater:
    """One gzip or zstd stream in the making."""

    def __init__(self, compression: Compression) -> None:
        self._compressor: Compressor
        if compression is Compression.GZIP:
            self._compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WRAPPER)
        elif compression is Compression.ZSTD:
            self._compressor = zstd.ZstdCompressor(level=_ZSTD_LEVEL)
        else:
            raise ValueError(f"nothing is compressed with {compression.value} here")
        self._ended = False

    def deflate(self, block: Buffer) -> bytes:
        """Compress DEFLATE_BLOCK_BYTES; a shorter block is the last."""
        length = memoryview(block).nbytes
        if self._ended or length > DEFLATE_BLOCK_BYTES:
            raise ValueError("blocks have one size, but for the last")
        self._ended = length < DEFLATE_BLOCK_BYTES
        return self._compressor.compress(block)

    def finish(self) -> bytes:
        """The rest of the stream, after the last block."""
        self._ended = True
        return self._compressor.flush()


def recipe_compressor() -> Compressor:
    """A zstd stream with a long window: see `delta.recipe`."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _RECIPE_LEVEL,
        zstd.CompressionParameter.window_log: RECIPE_WINDOW_BYTES.bit_length() - 1,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    return zstd.ZstdCompressor(options=options)


def recipe_operations(content: bytes) -> bytes:
    """Some bytes as a zstd frame whose reader needs no larger window than they are."""
    return zstd.compress(content, _RECIPE_OPERATIONS_LEVEL)


_SLICE_BYTES: Final = 128 << 10
"""What a decompressor is given at once. It copies what it does not use, which is slow with many tiny members."""

_LOOK_BYTES: Final = 4 << 10

_ERRORS: Final[tuple[type[Exception], ...]] = (
    cast("type[Exception]", igzip_lib.IsalError),  # its stubs call it an exception, not the class of one
    zstd.ZstdError,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
)

_LZMA2: Final = 0x21
"""The filter's number in an xz file."""

_XZ_OVERHEAD_BYTES: Final = 4 << 20
"""What liblzma takes besides the dictionary."""


class TrailingGarbage(ArchiveError):
    """Behind the last member is something that is no member."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: Buffer, max_length: int = ...) -> bytes: ...


def window_bytes(head: bytes) -> int:
    """The window or dictionary that compressed data claim at their beginning; the largest when it is not told there.

    https://www.rfc-editor.org/rfc/rfc8878#name-frame_header and https://tukaani.org/xz/xz-file-format.txt, 3.1
    """
    try:
        match sniff(head):
            case Compression.ZSTD:
                return _zstd_window(head)
            case Compression.XZ:
                return _xz_dictionary(head)
            case _:
                return 0  # a few megabytes at the most
    except IndexError:
        return 0  # it is cut off


def _zstd_window(head: bytes) -> int:
    if head[3] != 0xFD:
        return WINDOW_MAX_BYTES  # a frame to be skipped comes first
    flags = head[4]
    if flags & 0x20:  # a single segment: the window is the content
        at, size = 5 + (0, 1, 2, 4)[flags & 3], (1, 2, 4, 8)[flags >> 6]
        return int.from_bytes(head[at : at + size], "little") + (256 if size == 2 else 0)
    base = 1 << (10 + (head[5] >> 3))
    return base + base // 8 * (head[5] & 7)


def _xz_dictionary(head: bytes) -> int:
    at, flags = 14, head[13]
    for _ in range((flags >> 6 & 1) + (flags >> 7)):  # sizes of variable length
        while head[at] & 0x80:
            at += 1
        at += 1
    if head[at] != _LZMA2:
        return WINDOW_MAX_BYTES  # another filter comes first
    bits = head[at + 2]
    return (2 | bits & 1) << (bits // 2 + 11)


def _decompressor(compression: Compression, window_max_bytes: int) -> _Decompressor:
    match compression:
        case Compression.GZIP:
            return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        case Compression.ZSTD:
            window_log = window_max_bytes.bit_length() - 1
            return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window_log})
        case Compression.XZ:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=window_max_bytes + _XZ_OVERHEAD_BYTES)
        case Compression.BZIP2:
            return bz2.BZ2Decompressor()
        case _:
            raise ValueError("nothing to decompress")


class Inflater:
    """Decompresses one stream. Errors name `name` and the byte of the compressed form."""

    def __init__(self, compression: Compression, *, name: str = "", window_max_bytes: int = WINDOW_MAX_BYTES) -> None:
        self._compression = compression
        self._name = name
        self._decompressor: _Decompressor | None = _decompressor(compression, window_max_bytes)
        self._window_max_bytes = window_max_bytes
        self._data = memoryview(b"")
        self._at = 0
        self._members = 1
        self._produced = 0
        self._idle = 0
        self.consumed = 0
        """How many compressed bytes have been used."""

    @property
    def needs_input(self) -> bool:
        """Return whether the next `inflate` must bring data."""
        left = len(self._data) - self._at
        if self._decompressor is None:
            return left < MAGIC_BYTES
        return not left and self._decompressor.needs_input

    def inflate(self, data: Buffer, max_bytes: int) -> bytes:
        """Go on, with more `data` if that is needed (else with none); empty when there is nothing yet."""
        if memoryview(data).nbytes:
            left = bytes(self._data[self._at :])  # nothing, or the first bytes of what may be a next member
            self._data, self._at = memoryview(left + bytes(data) if left else data), 0
        while True:
            if self._decompressor is None and not self._begin_member():
                return b""
            output = self._step(max_bytes)
            self._check_use(output)
            if output or self.needs_input:
                return output

    def finish(self) -> None:
        """The input has ended; ArchiveTruncated when it should not have."""
        rest = self._data[self._at :]
        if self._decompressor is not None or (rest and sniff(rest) is self._compression):
            raise ArchiveTruncated(f"the {self._compression.value} data is cut off", where=self._where())
        if rest:
            raise self._garbage()

    def _begin_member(self) -> bool:
        """Look behind a member: pass over zeros, start on the next, or see that more input is needed."""
        # A slice at a time: with many tiny members, to look at all of the rest for each would be slow.
        rest = bytes(self._data[self._at : self._at + _LOOK_BYTES])
        while rest and not rest[0]:
            self._check_use(b"")
            self._use(len(rest) - len(rest.lstrip(b"\0")))
            rest = bytes(self._data[self._at : self._at + _LOOK_BYTES])
        if len(rest) < MAGIC_BYTES:
            return False
        if sniff(rest) is not self._compression:
            raise self._garbage()
        self._members += 1
        self._decompressor = _decompressor(self._compression, self._window_max_bytes)
        return True

    def _step(self, max_bytes: int) -> bytes:
        decompressor = self._decompressor
        assert decompressor is not None
        chunk = self._data[self._at : self._at + _SLICE_BYTES] if decompressor.needs_input else b""
        try:
            output = decompressor.decompress(chunk, max_bytes)
        except _ERRORS as exc:
            raise self._corrupt(exc) from exc
        self._use(len(chunk))
        if decompressor.eof:
            # It asks for more only when all it was given is used up: this is the end of the slice it got last.
            self._use(-len(decompressor.unused_data))
            self._decompressor = None
        return output

    def _use(self, count: int) -> None:
        self._at += count
        self.consumed += count

    def _check_use(self, output: bytes) -> None:
        """See that the work comes to something: there is no end to data that hold nothing."""
        self._produced += len(output)
        if output:
            self._idle = self.consumed
        kind = self._compression.value
        if self.consumed - self._idle > IDLE_MAX_BYTES:
            raise TrailingGarbage(f"{IDLE_MAX_BYTES >> 20} MiB of its {kind} data hold nothing", where=self._where())
        if self._members >= MEMBERS_COUNTED:
            if self._produced < MEMBERS_COUNTED * MEMBER_MEAN_MIN_BYTES:
                raise ArchiveError(
                    f"{MEMBERS_COUNTED:,} parts of its {kind} data, one behind the other, hold next to nothing",
                    where=self._where(),
                )
            self._members = self._produced = 0

    def _where(self) -> str:
        return f"{self._name}, byte {self.consumed}" if self._name else f"byte {self.consumed}"

    def _garbage(self) -> TrailingGarbage:
        return TrailingGarbage(
            f"behind the end of the {self._compression.value} data there is something else", where=self._where()
        )

    def _corrupt(self, exc: Exception) -> ArchiveError:
        kind, said = self._compression.value, str(exc)
        if "emory" in said:
            return ArchiveError(
                f"the {kind} data needs more than {self._window_max_bytes >> 20} MiB of memory to decompress; compress "
                "it again without --long or --ultra",
                where=self._where(),
            )
        what = "its checksum is wrong" if "hecksum" in said or "CRC" in said else "it cannot be decompressed"
        return ArchiveError(f"the {kind} data is corrupt: {what}", where=self._where())
