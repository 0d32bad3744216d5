"""Writing a file into the spool directory from afar, in three calls that can each be made again after a cut.

`probe` says what of `NAME~` has arrived, with its checksum; `append` writes from an offset on, and keeps what came
before a cut; `finish` compares the whole with the sender's checksum, makes it durable and renames it to
`NAME`, which hands it to the spooler. `NAME~` is locked meanwhile: two senders would mix their bytes.

A call whose caller has gone may still be starting while the caller's next ones are through. So `append` touches nothing
unless `NAME~` is as its caller saw it, and a byte has come.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from registry_spooler.errors import InvalidFileName
from registry_spooler.kubernetes.wire import ArrivedMeanwhile, ChecksumMismatch, DepositError, NothingArrived
from registry_spooler.spool.directory.workdir import measure
from registry_spooler.spool.filename import FileName, is_ignored
from registry_spooler.text import rfc3339, size_text

PIECE_BYTES: Final = 1 << 20
Read = Callable[[int], bytes]
"""Gives the next bytes, at most so many; none at the end."""
LOCK_SECONDS: Final = 5.0
"""How long the writer before us may take to notice that its caller has gone."""


@dataclass(frozen=True, slots=True)
class Deposit:
    """One file on its way into a spool directory."""

    directory: Path
    name: str
    limit_bytes: int | None = None
    """What the directory may hold, where its file system can hold more."""

    def __post_init__(self) -> None:
        check_name(self.name)

    def probe(self, size: int = 0) -> dict[str, Any]:
        """How many bytes have arrived, and their sha256; `size` is None when there are none at all.

        `size` is what the whole will be: what would not fit is refused here, before its caller sends anything.
        """
        try:
            with self._opened(os.O_RDONLY) as file:
                arrived = os.fstat(file).st_size
                self._check_room(size - arrived)
                return {"size": arrived, "sha256": _sha256(file), "now": _now()}
        except NothingArrived:
            self._check_room(size)
            return {"size": None, "sha256": None, "now": _now()}

    def append(self, read: Read, offset: int, *, arrived: int | None, size: int) -> dict[str, Any]:
        """Write what `read` gives from `offset` on, to its end; durable on return.

        `arrived` is what `probe` said; `size` is what the whole will be.
        """
        self._check_room(size - (arrived or 0))
        first = read(PIECE_BYTES)
        if not first and offset < size:
            raise DepositError(self.name, "no byte of it came", temporary=True)
        with self._opened(os.O_RDWR | (os.O_CREAT | os.O_EXCL if arrived is None else 0)) as file:
            if arrived is not None and os.fstat(file).st_size != arrived:
                raise ArrivedMeanwhile(self.name, "it has changed since it was looked at", temporary=True)
            try:
                os.ftruncate(file, offset)
                _copy(first, read, file, offset)
                os.fsync(file)
            except OSError as exc:
                raise self._translated(exc) from exc
            return {"size": os.fstat(file).st_size, "now": _now()}

    def finish(self, size: int, sha256: str) -> dict[str, Any]:
        """Compare what arrived with what was sent, and rename it to its name."""
        with self._opened(os.O_RDONLY) as file:
            arrived = os.fstat(file).st_size
            if arrived != size:
                raise ChecksumMismatch(self.name, f"{arrived} bytes arrived and {size} were sent")
            if _sha256(file) != sha256:
                raise ChecksumMismatch(self.name, "its checksum differs from what was sent")
            os.fsync(file)
            now = _now()
            os.rename(self._partial, self.directory / self.name)
        _sync_directory(self.directory)
        return {"name": self.name, "size": size, "sha256": sha256, "now": now}

    @property
    def _partial(self) -> Path:
        return self.directory / f"{self.name}~"

    def _check_room(self, needed_bytes: int) -> None:
        """Refuse what would not fit before any of it is written."""
        try:
            free_bytes = measure(self.directory, self.limit_bytes).free_bytes
        except OSError:
            return  # whatever is wrong with the directory is told by what comes next
        if needed_bytes > free_bytes:
            raise DepositError(
                self.name,
                f"it needs {size_text(needed_bytes)}, and the spool has room for {size_text(free_bytes)}; "
                "wait for the queue, remove what lies in .failed/, or give the spool more room",
            )

    @contextmanager
    def _opened(self, flags: int) -> Generator[int]:
        try:
            file = os.open(self._partial, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileNotFoundError as exc:
            if self.directory.is_dir():
                raise NothingArrived(self.name, f"there is no {self._partial.name!r}") from exc
            raise DepositError(self.name, f"there is no directory {str(self.directory)!r}") from exc
        except FileExistsError as exc:
            raise ArrivedMeanwhile(self.name, "it has appeared since it was looked for", temporary=True) from exc
        except OSError as exc:
            raise self._translated(exc) from exc
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise DepositError(self.name, f"{self._partial.name!r} is no regular file")
            self._lock(file)
            self._check_still_there(file)
            yield file
        finally:
            os.close(file)

    def _lock(self, file: int) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    raise DepositError(self.name, "somebody else is writing it", temporary=True) from exc
                time.sleep(0.05)

    def _check_still_there(self, file: int) -> None:
        """Whoever held the lock may have renamed it: then it is the spooler's, and not to be touched."""
        try:
            still_there = os.path.samestat(os.fstat(file), os.lstat(self._partial))
        except FileNotFoundError:
            still_there = False
        if not still_there:
            raise NothingArrived(self.name, f"{self._partial.name!r} has just been renamed")

    def _translated(self, exc: OSError) -> DepositError:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            free_bytes = measure(self.directory).free_bytes
            return DepositError(
                self.name,
                f"the spool volume is full, {size_text(free_bytes)} are left; "
                "wait for the queue, or give the spool more room",
            )
        return DepositError(self.name, exc.strerror or str(exc))


def check_name(name: str) -> FileName:
    """Read a name that a spool file is to have; InvalidFileName when the spooler would not take it."""
    if "/" in name or "\0" in name:
        raise InvalidFileName(name, r"a file name has no '/'; write '\' in its place")
    if not name or is_ignored(name):
        raise InvalidFileName(name, "names that start with '.' or end with '~' are ignored by the spooler")
    if len(os.fsencode(name)) > 254:
        raise InvalidFileName(name[:80] + "…", "it has more than 254 bytes")
    return FileName.parse(name)


def _copy(piece: bytes, read: Read, file: int, offset: int) -> None:
    while piece:
        view = memoryview(piece)
        while view:
            written = os.pwrite(file, view, offset)
            offset += written
            view = view[written:]
        piece = read(PIECE_BYTES)


def _sha256(file: int) -> str:
    sha256 = hashlib.sha256()
    offset = 0
    while piece := os.pread(file, PIECE_BYTES, offset):
        sha256.update(piece)
        offset += len(piece)
    return sha256.hexdigest()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return rfc3339(datetime.now(UTC))
