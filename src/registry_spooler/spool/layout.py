"""Where things are in a spool directory, and writing there so that it outlasts a power failure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WORK: Final = ".work"


@dataclass(frozen=True, slots=True)
class Layout:
    """The spool directory and the folders in it that are the spooler's own."""

    directory: Path

    @property
    def receipts(self) -> Path:
        """What was done: NAME.json."""
        return self.directory / ".receipts"

    @property
    def failed(self) -> Path:
        """What cannot be done: NAME and NAME.error.json."""
        return self.directory / ".failed"

    @property
    def locks(self) -> Path:
        """Which repositories are worked on, and by whom."""
        return self.directory / ".locks"

    @property
    def work(self) -> Path:
        """Each running spooler's temporary things, in a folder of its own."""
        return self.directory / WORK

    def prepare(self) -> None:
        """Make the folders that are missing; OSError when that cannot be done."""
        for folder in (self.receipts, self.failed, self.locks, self.work):
            folder.mkdir(exist_ok=True)


def write_durably(content: bytes, *, temporary: Path, target: Path) -> None:
    """Write a file so that `target` is at every instant its old self or the new one, and on the disk on return."""
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Put a directory's names on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
