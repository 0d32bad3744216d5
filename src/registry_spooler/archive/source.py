"""Where an archive's bytes come from: a regular file, or a pipe that is read once."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path


class FileSource:
    """A regular file, read by position through a descriptor that stays the caller's. `size` is in bytes."""

    def __init__(self, fd: int, *, name: str) -> None:
        self.fd = fd
        self.name = name
        self.size = 0

    @classmethod
    def open(cls, path: Path) -> AbstractAsyncContextManager[FileSource]:
        """Open a file for the time of an `async with`."""
        raise NotImplementedError


class PipeSource:
    """A pipe (standard input), read once, front to back; a cancellation ends a read that waits."""

    def __init__(self, fd: int, *, name: str) -> None:
        self.fd = fd
        self.name = name


Source = FileSource | PipeSource
