"""Locks between spoolers on one directory: one job per repository at a time, whoever does it.

A lock is a `flock` on a file in `.locks/`; the kernel frees it when its holder dies, however it dies. The file is
removed by whoever holds the lock, and a lock on a removed file counts for nothing: whoever got it tries again. A file
may hold a note from its holder to those who could not get the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Lock:
    """A lock that is held until `release`."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def release(self) -> None:
        """Let it go and remove its file; to be called once."""
        with suppress(OSError):  # a file that stays is removed by the next holder, or the next start
            self._path.unlink()
        os.close(self._fd)


class Locks:
    """The locks of one job, held until `release`."""

    def __init__(self, folder: Path) -> None:
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


def try_lock(folder: Path, key: str) -> Lock | None:
    """Take the lock for a repository, or None when another job holds it, in this process or elsewhere. Never waits."""
    return _lock_file(_path(folder, key), os.O_CREAT)


def leave_note(folder: Path, key: str, note: bytes) -> None:
    """Write a note into the file of a lock that is held here; OSError when that cannot be done."""
    fd = os.open(_path(folder, key), os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(fd, note)
    finally:
        os.close(fd)


def read_note(folder: Path, key: str) -> bytes:
    """What the holder of a lock has written there, all of it or only a beginning; nothing when there is none."""
    try:
        return _path(folder, key).read_bytes()
    except OSError:
        return b""


def clear_locks(folder: Path) -> None:
    """Remove the files of dead holders' locks."""
    for path in list(folder.iterdir()):
        lock = _lock_file(path, 0)
        if lock is not None:
            lock.release()


def _path(folder: Path, key: str) -> Path:
    return folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def _lock_file(path: Path, create: int) -> Lock | None:
    while True:
        try:
            fd = os.open(path, _FLAGS | create, 0o666)
        except FileNotFoundError:
            if create:
                raise
            return None
        if not _try_flock(fd):
            os.close(fd)
            return None
        if _is_at(path, fd):
            return Lock(path, fd)
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


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def try_flock_file(path: Path) -> int | None:
    """Lock an existing file for as long as the returned descriptor is open; None when another process holds it."""
    fd = os.open(path, _FLAGS)
    if _try_flock(fd):
        return fd
    os.close(fd)
    return None
