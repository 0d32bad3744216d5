"""Does anybody have the file open for writing? A read lease knows.

The kernel grants a read lease only while no process has the file open for writing, and as long as it is held, whoever
opens the file for writing waits for its release (https://man7.org/linux/man-pages/man2/fcntl.2.html, "Leases").
Asking for the lease again tells whether somebody waits. Where leases are not to be had (a file of another user
without CAP_LEASE; network file systems, whose other clients no lease here can see) the open files of the processes
that we may look at are searched.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

_NETWORK: Final = ("nfs", "cifs", "smb", "9p", "ceph", "fuse", "gluster", "virtiofs", "afs", "lustre", "gpfs", "ocfs")
_MOUNTS: Final = Path("/proc/self/mountinfo")


class Writers(enum.Enum):
    """The answer for one file at one moment."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"
    """No lease to be had, and none found by searching."""


@contextmanager
def read_lease(fd: int) -> Iterator[Writers]:
    """Hold a read lease on `fd` (opened read-only) where there is one; NONE means it is held. Hold it briefly.

    Ask `writers_now` for the state later on.
    """
    try:
        yield writers_now(fd)
    finally:
        _release(fd)


def look_for_writers(fd: int) -> Writers:
    """Has anybody the file open for writing, just now?"""
    with read_lease(fd) as writers:
        return writers


def writers_now(fd: int) -> Writers:
    """Take the lease, or confirm it: SOME as soon as anybody has the file open for writing or waits to open it."""
    try:
        # Whoever opens the file makes the kernel send a signal. SIGURG is ignored unless somebody asked for it;
        # the default, SIGIO, would end the process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        if exc.errno == errno.EAGAIN and not _is_network(os.fstat(fd).st_dev):
            return Writers.SOME
        return Writers.SOME if _found_among_processes(fd) else Writers.UNKNOWN
    return Writers.NONE


def _release(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return  # none was held


@lru_cache(maxsize=16)
def _is_network(device: int) -> bool:
    """Is the device one whose files other machines write? Unknown ones count as local."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[2] == number:
            return rest.startswith(_NETWORK)
    return False


def _found_among_processes(fd: int) -> bool:
    wanted = os.fstat(fd)
    processes = (process for process in _list("/proc") if process.isdigit())
    return any(_is_writing(process, number, wanted) for process in processes for number in _list(f"/proc/{process}/fd"))


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []  # the process has ended, or is none of ours


def _is_writing(process: str, number: str, wanted: os.stat_result) -> bool:
    try:
        status = os.stat(f"/proc/{process}/fd/{number}")
        if (status.st_dev, status.st_ino) != (wanted.st_dev, wanted.st_ino):
            return False
        info = Path(f"/proc/{process}/fdinfo/{number}").read_text()
    except OSError:
        return False  # closed meanwhile
    flags = next((line.split()[1] for line in info.splitlines() if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
