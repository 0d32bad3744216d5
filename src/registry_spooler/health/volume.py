"""How much room the spool's volume has: asked in a thread, since a network file system may take its time to answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry_spooler.threads import in_thread

_LOW_BYTES: Final = 1 << 20
"""Less is as good as none: a receipt and its directory entry want a few blocks."""


@dataclass(frozen=True, slots=True)
class Room:
    """One look at the volume. A file system without a fixed number of inodes has 0 of 0."""

    free_bytes: int = 0
    size_bytes: int = 0
    free_inodes: int = 0
    inodes: int = 0

    @property
    def shortage(self) -> str:
        """What has run out, as a sentence; empty when nothing has."""
        if self.size_bytes and self.free_bytes < _LOW_BYTES:
            return f"the volume has only {self.free_bytes:,} bytes left"
        if self.inodes and not self.free_inodes:
            return f"the volume has none of its {self.inodes} inodes free"
        return ""


class Volume:
    """A directory's volume as it was at the last look. Loop thread only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.room = Room()
        self.error = ""
        """Why the last look failed; empty when it did not."""

    async def look(self) -> None:
        """Look once."""
        try:
            self.room = await in_thread(_room, self._directory)
            self.error = ""
        except OSError as exc:
            self.error = f"the volume cannot be looked at: {exc.strerror or exc}"


def _room(directory: Path) -> Room:
    found = os.statvfs(directory)
    return Room(
        free_bytes=found.f_bavail * found.f_frsize,
        size_bytes=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail,
        inodes=found.f_files,
    )
