"""Which content a file holds, told from its inode without reading it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from registry_spooler.folder import Folder

_KINDS: Final = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """An inode in one of its states: any write gives another one. Times are in nanoseconds, the size in bytes."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Read it from what stat, lstat or fstat gave."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def mark(self) -> str:
        """What stands for the content, in names and notes: the same for every process and every host."""
        return f"{self.inode}.{self.size}.{self.modified_ns}"

    def same_inode(self, other: Identity) -> bool:
        """Is it the same file, whatever it holds now?"""
        return (self.device, self.inode) == (other.device, other.inode)

    def same_content(self, other: Identity) -> bool:
        """Is it the same file with the same content? A rename changes nothing here (it does change `changed_ns`)."""
        return self.same_inode(other) and (self.size, self.modified_ns) == (other.size, other.modified_ns)


class OddEntry(Exception):
    """What stands under this name is no regular file, and is left alone."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def look_at(folder: Folder, name: str) -> Identity:
    """The identity of a regular file, without opening it; OddEntry when it is none, OSError when nothing is there."""
    status = folder.status(name)
    if not stat.S_ISREG(status.st_mode):
        raise OddEntry(kind_of(status.st_mode))
    return Identity.of(status)


def kind_of(mode: int) -> str:
    """What a file that is no regular one is called."""
    return next((name for test, name in _KINDS if test(mode)), "device")
