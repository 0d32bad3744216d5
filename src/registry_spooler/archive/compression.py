"""Compressed bytes: recognised by how they begin, and made the same way every time.

A `Deflater` is fed blocks of one constant size, whatever pieces its source gives: the output of isal (and of zstd)
depends on where its input is cut, and the same layer must have the same digest always.
"""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, Final, Protocol

from isal import isal_zlib

from registry_spooler import mediatype
from registry_spooler.errors import ArchiveError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from typing_extensions import Buffer

DEFLATE_BLOCK_BYTES: Final = 1 << 20
"""What a `Deflater` is fed at once. Another value gives every layer another digest."""

_GZIP_LEVEL: Final = 1
"""Of isal's 0 to 3. On system libraries: level 1 0.55 GB/s to 0.410 of the size, level 2 0.52 GB/s to 0.405."""

_GZIP_WRAPPER: Final = 31
"""zlib's `wbits` for a gzip header and trailer; isal leaves the time in it zero."""

_ZSTD_LEVEL: Final = 3


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


class _Compressor(Protocol):
    def compress(self, data: Buffer, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Deflater:
    """One gzip or zstd stream in the making."""

    def __init__(self, compression: Compression) -> None:
        self._compressor: _Compressor
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
