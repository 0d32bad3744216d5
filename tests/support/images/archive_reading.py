"""Reading archives to the end, the way a push does, but into memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from registry_spooler.archive.compression import Compression, Inflater
from registry_spooler.archive.formats.image import ArchiveImage
from registry_spooler.archive.member_blob import MemberOpener
from registry_spooler.archive.opening import IndexedArchive, open_archive
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar import StreamByteReader
from registry_spooler.archive.tar_header import Kind
from registry_spooler.oci.blob import Measured


@dataclass(frozen=True)
class Read:
    """What was in an archive: its images, and what was measured of each file by its path."""

    images: tuple[ArchiveImage, ...]
    files: dict[str, Measured]


async def drain(opener: MemberOpener) -> tuple[bytes, Measured]:
    """A blob's wire form, and what the reader says of it."""
    async with opener() as reader:
        pieces = []
        while piece := await reader.read():
            pieces.append(bytes(piece))
        return b"".join(pieces), reader.measured


async def measure(opener: MemberOpener) -> Measured:
    """What the reader says of a blob; nothing is kept of it."""
    async with opener() as reader:
        while await reader.read():
            pass
        return reader.measured


async def read_archive(path: Path, *, compression: Compression = Compression.NONE) -> Read:
    """Read everything; documents are kept, all other files go through `blob`."""
    async with FileSource.open(path) as source, open_archive(source) as archive:
        if isinstance(archive, IndexedArchive):
            return await _read_indexed(archive, compression)
        return await _read_streamed(archive, compression)


async def _read_indexed(archive: IndexedArchive, compression: Compression) -> Read:
    files = {
        member.path: await measure(archive.blob(member, compression=compression))
        for member in archive._contents
        if member.kind is Kind.FILE
    }
    return Read(await archive.images(), files)


async def _read_streamed(archive: StreamedArchive, compression: Compression) -> Read:
    files = {}
    async for member in archive.members():
        if archive.is_document:
            await archive.keep()
        elif member.kind is Kind.FILE:
            files[member.path] = await measure(archive.blob(compression=compression))
    return Read(await archive.images(), files)


def tape_of(content: bytes, pieces: Callable[[int], int] = lambda count: count) -> StreamByteReader:
    """Bytes as a tape; `pieces` says how many of those asked for come at once."""
    left = memoryview(content)

    def pull(count: int) -> bytes:
        nonlocal left
        size = pieces(count)
        taken, left = left[:size], left[size:]
        return bytes(taken)

    return StreamByteReader(pull)


def inflate(content: bytes, compression: Compression, *, cuts: Callable[[], int] = lambda: 65536) -> bytes:
    """Decompress, feeding as many bytes at a time as `cuts` says, and taking as many."""
    inflater, at, out = Inflater(compression), 0, []
    while at < len(content) or not inflater.needs_input:
        data = b""
        if inflater.needs_input:
            size = cuts()
            data, at = content[at : at + size], at + size
        out.append(inflater.inflate(data, cuts()))
    inflater.finish()
    return b"".join(out)


@asynccontextmanager
async def opened(content: bytes, folder: Path, name: str = "archive") -> Any:
    """An archive of these bytes, open."""
    path = folder / name
    path.write_bytes(content)
    async with FileSource.open(path) as source, open_archive(source) as archive:
        yield archive


Opened = AbstractAsyncContextManager[IndexedArchive | StreamedArchive]


class Pipe:
    """Both ends of a pipe; closed at the end of a `with`."""

    def __enter__(self) -> Self:
        self.read_fd, self.write_fd = os.pipe()
        self._open = {self.read_fd, self.write_fd}
        return self

    def close_writer(self) -> None:
        self._open.discard(self.write_fd)
        os.close(self.write_fd)

    def __exit__(self, *exc: object) -> None:
        for fd in self._open:
            os.close(fd)
