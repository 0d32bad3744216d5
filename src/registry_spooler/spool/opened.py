"""A spool file, opened for reading: which content that is, and whether it still is.

Only regular files are opened, never through a symbolic link, and never in a way that could wait for somebody.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import Final

from registry_spooler.errors import SourceChanged
from registry_spooler.folder import Folder
from registry_spooler.spool.identity import Identity, OddEntry, kind_of, look_at
from registry_spooler.spool.names import display

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_TICK_NS: Final = 20_000_000
"""Longer than the clock tick that a file system takes its times from: two writes within one tick look like one."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """The file that a job is about. `fd` belongs to the spool and is read with `pread` only."""

    name: str
    """As people see it."""
    folder: Folder
    file_name: str
    """Where it was opened."""
    fd: int
    identity: Identity
    readable: bool = True
    """False for the file of a deletion that we may not read: its content does not matter."""

    @property
    def size(self) -> int:
        """In bytes, when it was opened."""
        return self.identity.size

    def is_unchanged(self) -> bool:
        """Is the opened file still in the state in which it was opened? A rename counts as a change."""
        return Identity.of(os.fstat(self.fd)) == self.identity

    def check_unchanged(self) -> None:
        """Raise SourceChanged when the file was written to, renamed or replaced: call it right before a tag is put.

        One system call on an open file, no reading: it does not block. (Whoever renames, removes or replaces a file
        changes its inode's change time.)
        """
        if not self.is_unchanged():
            raise SourceChanged(self.name)

    def close(self) -> None:
        """Close it; to be called once."""
        os.close(self.fd)


def open_file(folder: Folder, name: str, *, must_read: bool) -> OpenedFile:
    """Open a regular file. OddEntry when it is none; FileNotFoundError when it is gone; OSError when it cannot be read.

    Blocks for a clock tick when the file has just been written to.
    """
    look_at(folder, name)  # an odd entry is not even opened: opening a device can do things
    try:
        fd, readable = folder.open_file(name, _FLAGS), True
    except PermissionError:
        if must_read:
            raise
        fd, readable = folder.open_file(name, os.O_PATH), False
    try:
        return OpenedFile(display(name), folder, name, fd, _settled_identity(fd), readable)
    except BaseException:
        os.close(fd)
        raise


def _settled_identity(fd: int) -> Identity:
    """The state of the file, at a time from which on every write shows in it."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OddEntry(kind_of(status.st_mode))
    age_ns = time.time_ns() - status.st_mtime_ns
    if 0 <= age_ns < _TICK_NS:
        time.sleep((_TICK_NS - age_ns) / 1e9)
        # Written to again meanwhile? Then the end of the job does not find this state, and the job is done again.
    return Identity.of(status)
