"""A directory that is open: what is done in it goes by its descriptor and one plain name, and follows no link.

Whoever may write to a directory above can swap a name for a link between any two steps. A descriptor stays with the
directory that was opened. Everything here blocks. https://man7.org/linux/man-pages/man2/open.2.html (rationale for
openat)
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NOT_PLAIN: Final = frozenset({errno.ENOTDIR, errno.ELOOP})


class NotAFolder(OSError):
    """A link, or something else that is no directory, stands where a folder of the spooler's own should be."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(errno.ENOTDIR, f"{path} is a {kind} where the spooler has a folder of its own; remove it")


class Folder:
    """An open directory. `path` is what it was called when it was opened: for people, not for use."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a directory that the user named, through links if need be; OSError when that cannot be done."""
        return cls(os.open(path, _FOLDER), path)

    def subfolder(self, name: str, *, make: bool = False) -> Folder:
        """Open a directory in this one; NotAFolder when a link or anything else has that name."""
        if make:
            with suppress(FileExistsError):
                self.make_folder(name)
        try:
            fd = os.open(plain(name), _FOLDER | _NO_LINK, dir_fd=self.fd)
        except OSError as exc:
            if exc.errno in _NOT_PLAIN:
                raise NotAFolder(self.path / name, self._kind(name)) from exc
            raise
        return Folder(fd, self.path / name)

    def close(self) -> None:
        """Close it; what is open inside stays open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is in it

    def names(self) -> list[str]:
        """All names, in no order."""
        fd = os.open(".", _FOLDER, dir_fd=self.fd)  # listing moves the descriptor's position, which threads share
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def folder_names(self) -> list[str]:
        """The names of the directories in it; links are none."""
        return [name for name in self.names() if self._is_folder(name)]

    def status(self, name: str) -> os.stat_result:
        """What `lstat` says of a name."""
        return os.stat(plain(name), dir_fd=self.fd, follow_symlinks=False)

    def has(self, name: str) -> bool:
        """Return whether the name is taken, if only by a link that leads nowhere."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def holds(self, name: str, fd: int) -> bool:
        """Return whether the name is that of the opened file or directory."""
        try:
            return os.path.samestat(self.status(name), os.fstat(fd))
        except FileNotFoundError:
            return False

    def is_at(self, path: Path) -> bool:
        """Return whether the path leads to this directory."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    # Files

    def open_file(self, name: str, flags: int, mode: int = 0o666) -> int:
        """A descriptor of a file; OSError (ELOOP) when the name is a link."""
        return os.open(plain(name), flags | _NO_LINK, mode, dir_fd=self.fd)

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The content of a regular file; OSError when it is none, or larger than that."""
        fd = self.open_file(name, os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
                raise OSError(errno.EINVAL, f"{name} is no file of at most {limit_bytes} bytes")
            return file.read(limit_bytes)

    def create(self, name: str, content: bytes, *, durable: bool) -> None:
        """Write a new file; FileExistsError when the name is taken, whatever by. Nothing is left when that fails."""
        fd = self.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(fd)
        except OSError:
            self.remove(name, missing_ok=True)
            raise

    def rename(self, name: str, target: Folder, new: str) -> None:
        """Rename, in place of what has the new name."""
        os.rename(plain(name), plain(new), src_dir_fd=self.fd, dst_dir_fd=target.fd)

    def remove(self, name: str, *, missing_ok: bool = False) -> None:
        """Remove a file or a link."""
        try:
            os.unlink(plain(name), dir_fd=self.fd)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def make_folder(self, name: str) -> None:
        """Make a directory."""
        os.mkdir(plain(name), dir_fd=self.fd)

    def remove_folder(self, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(plain(name), dir_fd=self.fd)

    def sync(self) -> None:
        """Put the names on the disk."""
        os.fsync(self.fd)

    def _is_folder(self, name: str) -> bool:
        try:
            return stat.S_ISDIR(self.status(name).st_mode)
        except FileNotFoundError:
            return False

    def _kind(self, name: str) -> str:
        with suppress(OSError):
            if stat.S_ISLNK(self.status(name).st_mode):
                return "symbolic link"
        return "file"


def plain(name: str) -> str:
    """The name itself when it leads nowhere else; OSError for what is a path."""
    if not name or "/" in name or name in {".", ".."}:
        raise OSError(errno.EINVAL, f"{name!r} is not the name of a file in a folder")
    return name
