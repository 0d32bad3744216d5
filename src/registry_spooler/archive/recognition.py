"""What a source is, told by its first block and not by its name."""

from __future__ import annotations

from registry_spooler.archive import strangers
from registry_spooler.archive.compression import Compression, sniff
from registry_spooler.archive.header import BLOCK_BYTES, ZERO_BLOCK, has_checksum
from registry_spooler.errors import ArchiveError, ArchiveTruncated


def recognise(head: bytes) -> Compression:
    """How an archive is compressed, from its first BLOCK_BYTES; ArchiveError when it is none."""
    compression = sniff(head)
    if compression is Compression.NONE:
        check_tar(head, strangers.describe_head(head))
    return compression


def check_inside(head: bytes, compression: Compression) -> None:
    """Check the first BLOCK_BYTES of decompressed data; ArchiveError when they begin no tar."""
    what = f"the {compression.value} data in it"
    if (again := sniff(head)) is not Compression.NONE:
        raise ArchiveError(f"{what} holds compressed data again ({again.value}); compress the tar archive once")
    check_tar(head, f"{what} holds something else than a tar archive; {strangers.AS_FILE}", what=what)


def check_tar(head: bytes, otherwise: str, *, what: str = "it") -> None:
    """Is it the first block of a tar? Zeros are one that holds nothing."""
    if not head:
        raise ArchiveTruncated(f"{what} is empty")
    if len(head) == BLOCK_BYTES and (head == ZERO_BLOCK or has_checksum(head)):
        return
    if len(head) < BLOCK_BYTES and not strangers.is_known(head):
        raise ArchiveTruncated(f"{what} ends after {len(head)} bytes, too few for a tar archive")
    raise ArchiveError(otherwise)
