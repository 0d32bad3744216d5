"""Compressed bytes, recognised by how they begin."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


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
        raise NotImplementedError


def sniff(head: Buffer) -> Compression:
    """Tell from the first bytes; NONE when they are of no known compression."""
    raise NotImplementedError
