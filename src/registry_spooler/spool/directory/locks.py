"""Locks between spoolers on one directory: one job per repository at a time, or a bundle alone.

A lock is a `flock`; the kernel frees it when its holder dies, however it dies. A repository's is on a file in
`.locks/`, removed by whoever holds the lock; a lock on a removed file counts for nothing, and whoever got it tries
again. The whole spool's is on one file that stays, and is shared by all jobs but a bundle's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from registry_spooler.folder import Folder

_NAME: Final = re.compile(r"[0-9a-f]{40}")


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


def try_lock(folder: Folder, key: str) -> Lock | None:
    """Take the lock for a repository, or None when another job holds it, in this process or elsewhere. Never waits."""
    return _lock_file(folder, _name(key), os.O_CREAT)


def try_lock_spool(work: Folder, *, exclusive: bool) -> int | None:
    """Lock the whole spool while the returned descriptor is open, or None when another job's lock forbids it."""
    fd = work.open_file(".bundle", os.O_RDWR | os.O_CREAT)
    if _try_flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
        return fd
    os.close(fd)
    return None


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


def _try_flock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
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
def startup_lock(work: Folder) -> Iterator[None]:
    """Keep apart who makes a folder and who clears up: one that has just been made looks like a dead one's."""
    fd = work.open_file(".births", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # held for a few system calls only
        yield
    finally:
        os.close(fd)
