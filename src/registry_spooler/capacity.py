"""How much room a spool directory has: what its file system has left, within a limit of the spool's own.

A file system may be larger than what the spool may fill of it: an emptyDir, or a claim that nobody holds to its size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry_spooler.text import size_text

_LOW_BYTES: Final = 1 << 20
"""Less is as good as none: a receipt and its directory entry want a few blocks."""
_BLOCK_BYTES: Final = 512
"""The unit of st_blocks, whatever the file system's block size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The room of a spool directory at one moment. A file system without a fixed number of inodes has 0 of 0."""

    free_bytes: int = 0
    """What can still be written: by the file system, and by the limit."""
    size_bytes: int = 0
    """The size of the file system, or the limit if that is less."""
    limit_bytes: int | None = None
    free_inodes: int = 0
    inodes: int = 0

    @property
    def shortage(self) -> str:
        """What has run out, as a sentence; empty if nothing has."""
        if self.size_bytes and self.free_bytes < _LOW_BYTES:
            if self.limit_bytes == self.size_bytes:
                return f"the spool has {size_text(self.free_bytes)} left of its limit of {size_text(self.size_bytes)}"
            return f"the volume has only {size_text(self.free_bytes)} left"
        if self.inodes and not self.free_inodes:
            return f"the volume has none of its {self.inodes} inodes free"
        return ""


def measure(directory: Path, limit_bytes: int | None = None) -> Capacity:
    """Return the directory's room; blocks. OSError if its file system does not answer."""
    found = os.statvfs(directory)
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    if limit_bytes is not None:
        size = min(size, limit_bytes)
        free = min(free, max(0, limit_bytes - _used_bytes(directory)))
    return Capacity(
        free_bytes=free,
        size_bytes=size,
        limit_bytes=limit_bytes,
        free_inodes=found.f_favail,
        inodes=found.f_files,
    )


def _used_bytes(directory: Path) -> int:
    """Return what all files below a directory take; those that vanish meanwhile, or cannot be read, take nothing."""
    used = 0
    for _, _, names, descriptor in os.fwalk(directory):
        for name in names:
            try:
                used += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_blocks * _BLOCK_BYTES
            except OSError:
                continue
    return used
