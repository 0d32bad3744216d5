"""The tar format as far as a writer needs it that knows every size before it begins.

Headers are in the GNU format: sizes from 8 GiB on are base-256 numbers, which every reader knows, small ones
in containers included. https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

from __future__ import annotations

import tarfile
from typing import Final

BLOCK_BYTES: Final = 512
END: Final = bytes(2 * BLOCK_BYTES)
"""The end marker. An archive without it is one that was not finished."""


def header(path: str, size: int) -> bytes:
    """The header of a regular file; everything but path and size is constant, so archives are reproducible."""
    member = tarfile.TarInfo(path)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def padding(size: int) -> bytes:
    """What follows a content of `size` bytes up to the next block."""
    return bytes(-size % BLOCK_BYTES)
