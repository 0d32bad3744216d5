"""Blobs made ready for the wire: their digests and sizes are known, and they can be read as often as it takes."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio

from registry_spooler.blob import PIECE_BYTES, BlobReader, Measured
from registry_spooler.kube.packing import Part, blob_path
from registry_spooler.threads import in_thread

if TYPE_CHECKING:
    from typing_extensions import Buffer


LEFT_BEHIND_SECONDS: Final = 86_400.0
"""A file that nobody has written to for so long belongs to no push that still runs."""

_PREFIX: Final = "blob-"


class PackedBlob:
    """A blob in a temporary file of its own, in a folder; the constructor opens nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._path: Path | None = None

    async def write(self, reader: BlobReader) -> Measured:
        """Take all that the reader gives, in constant memory; checked by the reader."""
        self._file = await in_thread(self._create)
        while piece := await reader.read():
            await in_thread(self._file.write, piece)
        await in_thread(self._file.flush)
        return reader.measured

    def part(self, measured: Measured) -> Part:
        """What was written, as a file of a thin archive."""
        return Part(blob_path(measured.digest), measured.size, self._pieces)

    async def aclose(self) -> None:
        """Remove the file. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            with anyio.CancelScope(shield=True):
                await in_thread(self._remove, file)

    def _create(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self._folder, prefix=_PREFIX)
        self._path = Path(path)
        return os.fdopen(descriptor, "w+b", buffering=0)

    def _remove(self, file: BinaryIO) -> None:
        file.close()  # first: Windows removes no file that is open
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _pieces(self) -> AsyncGenerator[Buffer]:
        if self._file is None:
            raise RuntimeError("the blob is not packed")
        await in_thread(self._file.seek, 0)
        while piece := await in_thread(self._file.read, PIECE_BYTES):
            yield piece


async def sweep(folder: Path) -> None:
    """Remove what programs that were killed have left in the folder."""
    await in_thread(_sweep, folder)


def _sweep(folder: Path) -> None:
    oldest = time.time() - LEFT_BEHIND_SECONDS
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*"):
            if path.stat().st_mtime < oldest:
                path.unlink()


async def measure(reader: BlobReader) -> Measured:
    """Read a blob to its end, which checks it, and keep nothing of it."""
    while await reader.read():
        pass
    return reader.measured


def reread_part(reader: BlobReader, measured: Measured) -> Part:
    """A blob whose source can be read again, as a file of a thin archive."""

    async def pieces() -> AsyncGenerator[Buffer]:
        await reader.rewind(0)
        left = measured.size
        while left and (piece := await reader.read()):
            left -= memoryview(piece).nbytes
            yield piece

    return Part(blob_path(measured.digest), measured.size, pieces)
