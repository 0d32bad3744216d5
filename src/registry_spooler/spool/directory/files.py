"""Spool files: which content they hold, who writes to them, and how they are opened and renamed.

All work in them goes by their descriptors: whatever somebody makes of their names meanwhile, nothing outside of them is
touched. A link, or anything else that is no directory, in the place of one is refused.

https://man7.org/linux/man-pages/man2/rename.2.html

The kernel grants a read lease only while no process has the file open for writing, and as long as it is held, whoever
opens the file for writing waits for its release (https://man7.org/linux/man-pages/man2/fcntl.2.html, "Leases").
Asking for the lease again tells whether somebody waits. Where leases are not to be had (a file of another user
without CAP_LEASE; network file systems, whose other clients no lease here can see) the open files of the processes
that we may look at are searched.

Only regular files are opened, never through a symbolic link, and never in a way that could wait for somebody.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from registry_spooler.errors import SourceChanged
from registry_spooler.folder import Folder, plain
from registry_spooler.spool.filename import display

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
        """Return what stands for the content in file names: the same for every process and every host."""
        return f"{self.inode}.{self.size}.{self.modified_ns}"

    def same_inode(self, other: Identity) -> bool:
        """Return whether it is the same file, whatever it holds now."""
        return (self.device, self.inode) == (other.device, other.inode)

    def same_content(self, other: Identity) -> bool:
        """Return whether file and content are the same. A rename changes nothing here (it does change `changed_ns`)."""
        return self.same_inode(other) and (self.size, self.modified_ns) == (other.size, other.modified_ns)


class OddEntry(Exception):
    """What stands under this name is no regular file, and is left alone."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def identity_of(folder: Folder, name: str) -> Identity:
    """Return the identity of a regular file, unopened; OddEntry when it is none, OSError when nothing is there."""
    status = folder.status(name)
    if not stat.S_ISREG(status.st_mode):
        raise OddEntry(kind_of(status.st_mode))
    return Identity.of(status)


def kind_of(mode: int) -> str:
    """What a file that is no regular one is called."""
    return next((name for test, name in _KINDS if test(mode)), "device")


WORK: Final = ".work"
RECEIPTS: Final = ".receipts"
FAILED: Final = ".failed"
LOCKS: Final = ".locks"
OWN: Final = frozenset({WORK, RECEIPTS, FAILED, LOCKS})


@dataclass(frozen=True, slots=True)
class Layout:
    """One spool directory; made by `open_layout`."""

    directory: Folder
    receipts: Folder
    """What was done: NAME.json."""
    failed: Folder
    """What cannot be done: NAME and NAME.error.json."""
    locks: Folder
    """Which repositories are worked on, and by whom."""
    work: Folder
    """Each running spooler's temporary things, in a folder of its own."""

    def check(self) -> None:
        """Raise OSError (ESTALE) when a name leads to another folder than the one that is open, or to none."""
        if not self.directory.is_at(self.directory.path):
            raise OSError(errno.ESTALE, f"{self.directory.path} was removed, or is another directory now")
        for folder in (self.receipts, self.failed, self.locks, self.work):
            if not self.directory.holds(folder.path.name, folder.fd):
                raise OSError(errno.ESTALE, f"{folder.path} was removed, or something else has been put in its place")

    def close(self) -> None:
        """Close all of them; to be called when nothing uses them any more."""
        for folder in (self.receipts, self.failed, self.locks, self.work, self.directory):
            folder.close()


def open_layout(path: Path) -> Layout:
    """Open the directory and its folders, and make those that are missing; OSError when that cannot be done."""
    with ExitStack() as opened:
        directory = opened.enter_context(Folder.open(path))
        folders = [
            opened.enter_context(directory.subfolder(name, make=True)) for name in (RECEIPTS, FAILED, LOCKS, WORK)
        ]
        opened.pop_all()
    return Layout(directory, *folders)


def open_own(path: Path, name: str) -> Folder | None:
    """Open one of the folders for a look at it; None when there is none. NotAFolder when it is something else."""
    with suppress(FileNotFoundError), Folder.open(path) as directory:
        return directory.subfolder(name)
    return None


def write_durably(content: bytes, *, work: Folder, temporary: str, target: Folder, name: str) -> None:
    """Write a file so that `name` is at every instant its old self or the new one, and on the disk on return."""
    work.create(temporary, content, durable=True)
    try:
        work.rename(temporary, target, name)
    except OSError:
        work.remove(temporary, missing_ok=True)
        raise
    target.sync()


_RENAME_NOREPLACE: Final = 1
_NOT_OFFERED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
"""By an old kernel or C library, or by the file system: NFS answers EINVAL."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def rename_noreplace(source: Folder, name: str, target: Folder, new: str) -> None:
    """Rename, or raise FileExistsError when the new name is taken; any other OSError as `os.rename` has it."""
    number = _renameat2(source, plain(name), target, plain(new))
    if number in _NOT_OFFERED:
        _link_and_unlink(source, name, target, new)
    elif number:
        raise OSError(number, os.strerror(number), name, None, new)


def _renameat2(source: Folder, name: str, target: Folder, new: str) -> int:
    """Return the error number, 0 for success."""
    function = getattr(_libc, "renameat2", None)
    if function is None:
        return errno.ENOSYS
    done = function(source.fd, os.fsencode(name), target.fd, os.fsencode(new), ctypes.c_uint(_RENAME_NOREPLACE))
    return 0 if done == 0 else ctypes.get_errno()


def _link_and_unlink(source: Folder, name: str, target: Folder, new: str) -> None:
    """A second link fails when the name is taken. Killed in between, the file has two names, and is whole."""
    try:
        os.link(name, new, src_dir_fd=source.fd, dst_dir_fd=target.fd, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}:
            raise
        # No links on this file system, or none to files of others (fs.protected_hardlinks): the last resort.
        if target.has(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from exc
        source.rename(name, target, new)
        return
    source.remove(name)


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
    """Return whether anybody has the file open for writing just now."""
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
    """Return whether other machines can write to the device. Unknown ones count as local."""
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

    @property
    def size(self) -> int:
        """Return the size in bytes when it was opened."""
        return self.identity.size

    def is_unchanged(self) -> bool:
        """Return whether the opened file is still in the state in which it was opened. A rename counts as a change."""
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
    identity_of(folder, name)  # an odd entry is not even opened: opening a device can do things
    try:
        fd = folder.open_file(name, _FLAGS)
    except PermissionError:
        if must_read:
            raise
        fd = folder.open_file(name, os.O_PATH)  # of a deletion: its content does not matter
    try:
        return OpenedFile(display(name), folder, name, fd, _settled_identity(fd))
    except BaseException:
        os.close(fd)
        raise


def _settled_identity(fd: int) -> Identity:
    """Return the state of the file at a time from which on every write shows in it."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OddEntry(kind_of(status.st_mode))
    age_ns = time.time_ns() - status.st_mtime_ns
    if 0 <= age_ns < _TICK_NS:
        time.sleep((_TICK_NS - age_ns) / 1e9)
        # Written to again meanwhile? Then the end of the job does not find this state, and the job is done again.
    return Identity.of(status)
