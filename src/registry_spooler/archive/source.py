"""Where an archive's bytes come from: a regular file, or a pipe that is read once.

Plain blocking code, called in threads. A `Feed` is one reading of a source from its first byte; whoever opened it
can `stop` it from another thread, and a read that waits then ends at once.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from registry_spooler.aio import in_thread
from registry_spooler.errors import SourceChanged, SourceUnreadable, SpoolerError

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class FileSource:
    """A regular file, read by position through a descriptor that stays the caller's.

    `size` (bytes) is the file's when this is made. What is appended later is not read, and a file that
    has become shorter raises SourceChanged. Any thread may read.
    """

    def __init__(self, fd: int, *, name: str) -> None:
        self.fd = fd
        self.name = name
        self.size = os.fstat(fd).st_size
        self.has_turn = False
        """Whether it is this file's turn among those that take much memory to decompress."""
        self._seeking = threading.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[FileSource]:
        """Open a file for the time of an `async with`; OSError when that fails."""
        fd = await in_thread(os.open, path, _FLAGS)
        try:
            yield cls(fd, name=path.name)
        finally:
            os.close(fd)

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position`; fewer only at the end of the file."""
        count = min(count, self.size - position)
        if count <= 0:
            return b""
        content = self._pread(position, count)
        while len(content) < count:  # Linux gives at most 2 GiB at once, network file systems less
            more = self._pread(position + len(content), count - len(content))
            if not more:
                raise SourceChanged(self.name)
            content += more
        return content

    def expect_read(self, position: int, count: int) -> None:
        """Have the disk begin to read what is needed soon: several members are read by turns, which it cannot foresee.

        https://man7.org/linux/man-pages/man2/posix_fadvise.2.html
        """
        if sys.platform == "linux":
            with suppress(OSError):  # a file system without it; the read itself tells what is wrong
                os.posix_fadvise(self.fd, position, count, os.POSIX_FADV_WILLNEED)

    def _pread(self, position: int, count: int) -> bytes:
        try:
            if sys.platform != "win32":
                return os.pread(self.fd, count, position)
            with self._seeking:
                os.lseek(self.fd, position, os.SEEK_SET)
                return os.read(self.fd, count)
        except OSError as exc:
            raise SourceUnreadable(self.name, exc.strerror or str(exc)) from exc


class PipeSource:
    """A pipe (standard input), read once, front to back. The descriptor stays the caller's.

    `left_bytes` is what is still to come, where that is known; None: the pipe's end tells. `patience_seconds` is how
    long a read waits for a byte; None: for ever.
    """

    def __init__(self, fd: int, *, name: str, left_bytes: int | None = None) -> None:
        self.fd = fd
        self.name = name
        self.left_bytes = left_bytes
        self.patience_seconds: float | None = None


Source = FileSource | PipeSource


def source_of(fd: int, name: str) -> Source:
    """Return what an open descriptor is to be read as. SourceUnreadable for a directory."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise SourceUnreadable(name, "it is a directory; only files are pushed")
    return FileSource(fd, name=name) if stat.S_ISREG(mode) else PipeSource(fd, name=name)


def unchanged(source: Source) -> Callable[[], None]:
    """Return a check for before an image is tagged: SourceChanged unless what was read was one state of a file."""
    before = _state(source.fd)

    def check() -> None:
        if _state(source.fd) != before:
            raise SourceChanged(source.name)

    return check


def _state(fd: int) -> tuple[int, int] | None:
    status = os.fstat(fd)
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


class Stopped(SpoolerError):
    """The reading was stopped by its owner; nobody else ever sees this."""


class FileFeed:
    """A file, front to back."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._stopped = False
        self.position = 0

    def check(self) -> None:
        """Raise Stopped after `stop`: for work that goes on for long without a read."""
        if self._stopped:
            raise Stopped

    def read(self, count: int) -> bytes:
        """Return the next bytes, at most `count`; none at the end."""
        self.check()
        content = self._source.read_at(self.position, count)
        self.position += len(content)
        return content

    def stop(self) -> None:
        """Let the next read raise Stopped."""
        self._stopped = True

    def close(self) -> None:
        """Nothing is held."""


class PipeFeed:
    """A pipe, front to back. Its reads wait for the pipe or for `stop`, whatever comes first."""

    def __init__(self, source: PipeSource) -> None:
        self._source = source
        self._stopped = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        if sys.platform != "win32":
            os.set_blocking(self._wake_write, False)  # `stop` is called on the event loop
        self.position = 0

    def check(self) -> None:
        """Raise Stopped after `stop`: for work that goes on for long without a read."""
        if self._stopped.is_set():
            raise Stopped

    def read(self, count: int) -> bytes:
        """Return the next bytes, at most `count`; none at the end. SourceUnreadable when the end comes too early."""
        source = self._source
        if source.left_bytes is not None:
            count = min(count, source.left_bytes)
        content = self._read(count) if count else b""
        self.position += len(content)
        if source.left_bytes:
            if not content:
                raise SourceUnreadable(source.name, "it ended too early")
            source.left_bytes -= len(content)
        return content

    def _read(self, count: int) -> bytes:
        while True:
            self._wait()
            self.check()
            try:
                return os.read(self._source.fd, count)
            except BlockingIOError:
                continue  # somebody else shares the pipe (ssh does) and made it non-blocking
            except OSError as exc:
                raise SourceUnreadable(self._source.name, exc.strerror or str(exc)) from exc

    def _wait(self) -> None:
        if sys.platform == "win32":
            return  # its pipes cannot be waited for: there a read ends when the other side closes
        poll = select.poll()
        poll.register(self._source.fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        patience = self._source.patience_seconds
        if not poll.poll(patience * 1000 if patience is not None else None):
            raise SourceUnreadable(self._source.name, f"nothing came for {patience:g} seconds")

    def stop(self) -> None:
        """Let the read that waits, and every later one, raise Stopped."""
        if not self._stopped.is_set():
            self._stopped.set()
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        """Give back the descriptors, after the last read."""
        os.close(self._wake_read)
        os.close(self._wake_write)


Feed = FileFeed | PipeFeed
