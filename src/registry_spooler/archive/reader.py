"""Blobs on their way out of an archive: as they are or compressed, hashed and checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.source import FileSource
from registry_spooler.blob import Measured
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a blob must turn out to be; the reader raises ArchiveError at its last read at the latest.

    `size` (bytes) and `digest` are of the wire form, `diff_id` of the uncompressed bytes, `compression` of the
    member's own bytes: when it is given, they must be sound data of that kind.
    """

    digest: Digest | None = None
    size: int | None = None
    diff_id: Digest | None = None
    compression: Compression | None = None


class MemberReader:
    """A `BlobReader` over one member, that also tells what it found inside."""

    @property
    def size(self) -> int | None:
        """See `BlobReader.size`."""
        raise NotImplementedError

    @property
    def rewindable(self) -> bool:
        """See `BlobReader.rewindable`."""
        raise NotImplementedError

    @property
    def measured(self) -> Measured:
        """See `BlobReader.measured`; `diff_id` is None when `flaw` is not."""
        raise NotImplementedError

    @property
    def compression(self) -> Compression:
        """What the wire form is: compressed by us, or sniffed from the first piece (NONE before it)."""
        raise NotImplementedError

    @property
    def flaw(self) -> ArchiveError | None:
        """What is wrong with the compressed data inside, when nobody expected it to be sound."""
        raise NotImplementedError

    async def read(self) -> Buffer:
        """See `BlobReader.read`."""
        raise NotImplementedError

    async def rewind(self, offset: int) -> None:
        """See `BlobReader.rewind`."""
        raise NotImplementedError


MemberOpener = Callable[[], AbstractAsyncContextManager[MemberReader]]
"""A `BlobOpener`."""


def file_blob(source: FileSource, *, compression: Compression = Compression.GZIP) -> MemberOpener:
    """A whole file as one blob: compressed, or as it is (NONE). `measured.diff_id` is the digest of its bytes."""
    raise NotImplementedError
