"""A spooler's own folder in `.work/`, and how much the volume can hold.

A file system may be larger than what the spool may fill of it: an emptyDir, or a claim that nobody holds to its size.

.work/RUN/alive          locked for as long as the spooler lives
    .work/RUN/reserve        given up when a record finds no room: a full disk is emptied by pushing what is on it
    .work/RUN/N.tmp          a record that is being written
    .work/RUN/MARK.job       what is being worked on: deaths.py
    .work/RUN/N/NAME         a file set aside: it is about to go to `.failed/`, or its name was taken again meanwhile
    .work/RUN/N.done.…/NAME  a file set aside to be removed: its receipt is on the disk, and the folder's name says
                             of which content
    .work/.reserve           the reserve of a spooler that has stopped, for the next one

Whoever can lock another run's `alive` knows that its owner is dead, and clears up after it: housekeeping.py.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from registry_spooler.folder import Folder
from registry_spooler.spool.directory.deaths import JOB
from registry_spooler.spool.directory.files import Identity, Layout, open_layout, rename_noreplace, write_durably
from registry_spooler.spool.directory.locks import startup_lock
from registry_spooler.text import size_text

_LOW_BYTES: Final = 1 << 20
"""Less is as good as none: a receipt and its directory entry want a few blocks."""
_BLOCK_BYTES: Final = 512
"""The unit of st_blocks, whatever the file system's block size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The free space of a spool directory at one moment. A file system without a fixed number of inodes has 0 of 0."""

    free_bytes: int = 0
    """What can still be written: by the file system, and by the limit."""
    size_bytes: int = 0
    """The size of the file system, or the limit if that is less."""
    limit_bytes: int | None = None
    free_inodes: int = 0
    inodes: int = 0

    @property
    def shortage(self) -> str:
        """Return what has run out, as a sentence; empty if nothing has."""
        if self.size_bytes and self.free_bytes < _LOW_BYTES:
            if self.limit_bytes == self.size_bytes:
                return f"the spool has {size_text(self.free_bytes)} left of its limit of {size_text(self.size_bytes)}"
            return f"the volume has only {size_text(self.free_bytes)} left"
        if self.inodes and not self.free_inodes:
            return f"the volume has none of its {self.inodes} inodes free"
        return ""


def measure(directory: Path, limit_bytes: int | None = None) -> Capacity:
    """Return the directory's free space; blocks. OSError if its file system does not answer."""
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


T = TypeVar("T")

RESERVE_BYTES: Final = 256 << 10
"""Enough for the records of a few jobs at once, and for the directory blocks that they may need."""
RUN: Final = re.compile(r"[0-9a-f]{16}")
"""What a run's folder is called. What is called otherwise is none, and nobody's to clear up."""
ALIVE: Final = "alive"
RESERVE: Final = "reserve"
LEFT: Final = ".reserve"
_ASIDE: Final = re.compile(r"\d+(\.done\.[0-9.]+)?")
_TEMPORARY: Final = re.compile(r"\d+\.(tmp|probe)")
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Aside:
    """A file that was set aside, in a folder of its own."""

    folder: Folder
    name: str

    def remove(self) -> None:
        """Remove the file."""
        self.folder.remove(self.name)


class WorkDir:
    """One run's folder; made by `open_room`. Its methods block, and may be called from several threads."""

    def __init__(self, layout: Layout, folder: Folder, alive: int) -> None:
        self.layout = layout
        self.folder = folder
        self.orphaned: list[Aside] = []
        """Files whose names are taken, for the spool to make jobs of and to remove from here: each is older than what
        has the name now."""
        self.given_back: set[tuple[str, str]] = set()
        """Names and marks of the files that dead runs had set aside, and that have their names again: they had their
        turn, though the rename makes them look new."""
        self._alive = alive
        self._asides: set[Folder] = set()
        self._numbers = itertools.count()
        self._closed = False

    def close(self) -> None:
        """Leave: remove everything but files that were set aside, which the next start finds, and the reserve."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            with suppress(FileNotFoundError):
                self.folder.rename(RESERVE, self.layout.work, LEFT)
            empty_run(self.folder)
            if self.folder.names() == [ALIVE]:
                self.folder.remove(ALIVE)
                self.layout.work.remove_folder(self.folder.path.name)
        os.close(self._alive)
        for folder in (*self._asides, self.folder):
            folder.close()
        self.layout.close()

    def write(self, folder: Folder, name: str, content: bytes) -> None:
        """Write a record durably, out of the reserve when there is no other room."""
        self.layout.check()
        self.in_need(
            lambda: write_durably(
                content, work=self.folder, temporary=f"{next(self._numbers)}.tmp", target=folder, name=name
            )
        )

    def in_need(self, action: Callable[[], T]) -> T:
        """Do something that needs a little room on the disk, if need be by giving up the reserve."""
        try:
            return action()
        except OSError as exc:
            if exc.errno not in NO_ROOM or not self.folder.has(RESERVE):
                raise
        self.folder.remove(RESERVE, missing_ok=True)
        return action()

    def keep_reserve(self) -> None:
        """Make the reserve when it is missing; OSError (ENOSPC) when there is no room for it."""
        if self.folder.has(RESERVE):
            return None
        with suppress(FileNotFoundError):
            return self.layout.work.rename(LEFT, self.folder, RESERVE)
        fd = self.folder.open_file(RESERVE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError:
            self.folder.remove(RESERVE, missing_ok=True)
            raise
        finally:
            os.close(fd)

    def probe(self) -> None:
        """Raise OSError if nothing can be written in the spool, FileNotFoundError if folders were removed."""
        self.layout.check()
        for folder in (self.layout.directory, self.layout.receipts, self.layout.failed, self.layout.locks):
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder.fd):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder.path))
        number = next(self._numbers)
        probe = f"{number}.probe"
        write_durably(b"probe", work=self.folder, temporary=f"{number}.tmp", target=self.folder, name=probe)
        self.folder.remove(probe)
        self.keep_reserve()

    def set_aside(self, folder: Folder, name: str, *, done: Identity | None) -> Aside:
        """Take a file out of the spool: from here on nobody finds it by its name. Returns where it is.

        `done`: the content that a durable receipt speaks of.
        """
        own = f"{next(self._numbers)}{f'.done.{done.mark}' if done else ''}"
        self.in_need(lambda: self.folder.make_folder(own))
        aside = self._open_aside(own, name)
        try:
            self.in_need(lambda: folder.rename(name, aside.folder, name))
        except OSError:
            self._drop(aside.folder)
            raise
        if folder in self._asides:  # it was aside before
            self._drop(folder)
        return aside

    def give_back(self, aside: Aside) -> None:
        """Put a file that was set aside back under its name; when that cannot be done, it stays here as `orphaned`."""
        try:
            return_aside(aside, self.layout.directory)
        except OSError:
            self.orphaned.append(aside)
        else:
            self._drop(aside.folder)

    def drop_folder(self, aside: Aside) -> None:
        """Remove the folder that a file was set aside in, after the file."""
        self._drop(aside.folder)

    def adopt(self, run: Folder, own: str, name: str) -> None:
        """Take over a file that a dead run had set aside, and whose name is taken."""
        number = str(next(self._numbers))
        run.rename(own, self.folder, number)
        self.orphaned.append(self._open_aside(number, name))

    def _open_aside(self, own: str, name: str) -> Aside:
        folder = self.folder.subfolder(own)
        self._asides.add(folder)
        return Aside(folder, name)

    def _drop(self, folder: Folder) -> None:
        self._asides.discard(folder)
        with suppress(OSError):
            self.folder.remove_folder(folder.path.name)
        folder.close()


def open_workdir(directory: Path) -> WorkDir:
    """Open the spool's folders and, in `.work/`, make the folder of this run; OSError when that cannot be done."""
    layout = open_layout(directory)
    try:
        workdir = _make_workdir(layout)
    except BaseException:
        layout.close()
        raise
    with suppress(OSError):  # it is made later, by `probe`
        workdir.keep_reserve()
    return workdir


def _make_workdir(layout: Layout) -> WorkDir:
    run = secrets.token_hex(8)
    with startup_lock(layout.work):
        layout.work.make_folder(run)
        folder = layout.work.subfolder(run)
        try:
            alive = folder.open_file(ALIVE, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            with suppress(OSError):
                folder.remove(ALIVE, missing_ok=True)
                layout.work.remove_folder(run)
            folder.close()
            raise
    return WorkDir(layout, folder, alive)


def return_aside(aside: Aside, directory: Folder) -> None:
    """Give a file its name back; FileExistsError when that is taken."""
    with suppress(FileNotFoundError):
        rename_noreplace(aside.folder, aside.name, directory, aside.name)


def aside_folders(run: Folder) -> list[str]:
    """Return the folders in a run's folder that files are set aside in."""
    return [name for name in run.folder_names() if _ASIDE.fullmatch(name)]


def empty_run(run: Folder) -> None:
    """Remove what is not a file set aside, nor the lock, nor anything that no spooler has made."""
    for name in aside_folders(run):
        with suppress(OSError):
            run.remove_folder(name)
    for name in run.names():
        if name == RESERVE or name.endswith(JOB) or _TEMPORARY.fullmatch(name):
            run.remove(name, missing_ok=True)
