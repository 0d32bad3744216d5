"""Thin archives, as they go over the wire: a tar whose every byte's position is known before the first is sent.

An OCI layout in a tar (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) may hold only some
of its image's blobs; the rest is in the registry already. The length of the whole is known beforehand, so a channel
that cannot end standard input can be told it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import anyio

from registry_spooler.aio import in_thread
from registry_spooler.kubernetes.remote_session import Input
from registry_spooler.oci.blob import PIECE_BYTES, BlobReader, Measured
from registry_spooler.oci.layout_writer import (
    INDEX_PATH,
    LAYOUT,
    LAYOUT_PATH,
    TAR_END,
    blob_path,
    image_entry,
    index_document,
    tar_header,
    tar_padding,
    tar_size,
)
from registry_spooler.oci.manifest import REFERENCE_NAME, Manifest

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
        while piece := memoryview(await reader.read()):
            await in_thread(self._file.write, piece)
        await in_thread(self._file.flush)
        return reader.measured

    def part(self, measured: Measured) -> ArchivePart:
        """What was written, as a file of a thin archive."""
        return ArchivePart(blob_path(measured.digest), measured.size, self._pieces)

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
    while memoryview(await reader.read()):
        pass
    return reader.measured


def reread_part(reader: BlobReader, measured: Measured) -> ArchivePart:
    """A blob whose source can be read again, as a file of a thin archive."""

    async def pieces() -> AsyncGenerator[Buffer]:
        await reader.rewind(0)
        left = measured.size
        while left and (piece := memoryview(await reader.read())):
            left -= piece.nbytes
            yield piece

    return ArchivePart(blob_path(measured.digest), measured.size, pieces)


@dataclass(frozen=True, slots=True)
class ArchivePart:
    """One file of the archive; `open_pieces` gives its `size` bytes, as often as it is called."""

    path: str
    size: int
    open_pieces: Callable[[], AsyncGenerator[Buffer]]


def content_part(path: str, content: bytes) -> ArchivePart:
    """A file whose content is at hand."""
    return ArchivePart(path, len(content), lambda: _one(content))


def pack(parts: Sequence[ArchivePart]) -> Input:
    """The tar of these files, in their order."""
    return Input(tar_size((part.path, part.size) for part in parts), _pieces(parts))


def image_parts(
    root: Manifest,
    tag: str,
    *,
    manifests: Collection[Manifest],
    companions: Mapping[str, Manifest],
    blobs: Iterable[ArchivePart],
) -> list[ArchivePart]:
    """An OCI layout whose one image is `root`: the index first, so that the reader knows what comes.

    `companions` speak of it, or of its parts, and go to the tags that they are given by.
    """
    speaking = [manifest for manifest in manifests if manifest.subject is not None]
    entries = [
        _entry(root, tag),
        *map(_entry, speaking),
        *(_entry(manifest, name) for name, manifest in companions.items()),
    ]
    contents = {manifest.digest: manifest.content for manifest in (root, *manifests, *companions.values())}
    return [
        content_part(LAYOUT_PATH, LAYOUT),
        content_part(INDEX_PATH, index_document(entries)),
        *(content_part(blob_path(digest), content) for digest, content in contents.items()),
        *blobs,
    ]


def _entry(manifest: Manifest, tag: str = "") -> dict[str, Any]:
    return image_entry(manifest.descriptor(), {REFERENCE_NAME: tag} if tag else {})


async def _pieces(parts: Sequence[ArchivePart]) -> AsyncGenerator[Buffer]:
    for part in parts:
        yield tar_header(part.path, part.size)
        sent = 0
        async with aclosing(part.open_pieces()) as pieces:
            async for piece in pieces:
                sent += memoryview(piece).nbytes
                yield piece
        if sent != part.size:
            raise RuntimeError(f"{part.path} has {sent} bytes and was announced with {part.size}")
        yield tar_padding(part.size)
    yield TAR_END


async def _one(content: bytes) -> AsyncGenerator[Buffer]:
    yield content
