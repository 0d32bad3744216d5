"""Locks between spoolers on one directory: one job per repository at a time, whoever does it.

A lock is a `flock` on a file in `.locks/`; the kernel frees it when its holder dies, however it dies. The file is
removed by whoever holds the lock, and a lock on a removed file counts for nothing: whoever got it tries again. A file
may hold a note from its holder to those who could not get the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from registry_spooler.folder import Folder

_NAME: Final = re.compile(r"[0-9a-f]{40}")
_NOTE_MAX_BYTES: Final = 1 << 20


class Lock:
    """A lock that is held until `release`."""

    def __init__(self, folder: Folder, name: str, fd: int) -> None:
        self._folder = folder
        self._name = name
        self._fd = fd

    def release(self) -> None:
        """Let it go and remove its file; to be called once."""
        with suppress(OSError):  # a file that stays is removed by the next holder, or the next start
            self._folder.remove(self._name)
        os.close(self._fd)


class Locks:
    """The locks of one job, held until `release`."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._held: dict[str, Lock] = {}

    def try_take(self, keys: Iterable[str]) -> bool:
        """Take those of them that are not held yet, all or none; False when another job holds one. Never waits."""
        taken: dict[str, Lock] = {}
        try:
            for key in keys:
                if key not in self._held and key not in taken:
                    lock = try_lock(self._folder, key)
                    if lock is None:
                        return False
                    taken[key] = lock
            self._held |= taken
            taken = {}
            return True
        finally:
            for lock in taken.values():
                lock.release()

    def release(self) -> None:
        """Let all of them go."""
        while self._held:
            self._held.popitem()[1].release()


def try_lock(folder: Folder, key: str) -> Lock | None:
    """Take the lock for a repository, or None when another job holds it, in this process or elsewhere. Never waits."""
    return _lock_file(folder, _name(key), os.O_CREAT)


def leave_note(folder: Folder, key: str, note: bytes) -> None:
    """Write a note into the file of a lock that is held here; OSError when that cannot be done."""
    fd = folder.open_file(_name(key), os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(fd, note)
    finally:
        os.close(fd)


def read_note(folder: Folder, key: str) -> bytes:
    """What the holder of a lock has written there, all of it or only a beginning; nothing when there is none."""
    try:
        return folder.read(_name(key), _NOTE_MAX_BYTES)
    except OSError:
        return b""


def clear_locks(folder: Folder) -> None:
    """Remove the files of dead holders' locks, and nothing that is called otherwise."""
    for name in filter(_NAME.fullmatch, folder.names()):
        lock = _lock_file(folder, name, 0)
        if lock is not None:
            lock.release()


def _name(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _lock_file(folder: Folder, name: str, create: int) -> Lock | None:
    while True:
        try:
            fd = folder.open_file(name, os.O_RDWR | create)
        except FileNotFoundError:
            if create:
                raise
            return None
        if not _try_flock(fd):
            os.close(fd)
            return None
        if folder.holds(name, fd):
            return Lock(folder, name, fd)
        os.close(fd)  # its last holder removed it between our opening and our locking


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except BaseException:
        os.close(fd)
        raise
    return True


def try_flock_file(folder: Folder, name: str) -> int | None:
    """Lock an existing file for as long as the returned descriptor is open; None when another process holds it."""
    fd = folder.open_file(name, os.O_RDWR)
    if _try_flock(fd):
        return fd
    os.close(fd)
    return None


@contextmanager
def births(work: Folder) -> Iterator[None]:
    """Keep apart who makes a folder and who clears up: one that has just been made looks like a dead one's."""
    fd = work.open_file(".births", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # held for a few system calls only
        yield
    finally:
        os.close(fd)
