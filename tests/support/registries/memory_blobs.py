"""Blobs for the tests of the registry client, read the way that the archive side reads its members."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio.lowlevel

from registry_spooler.oci.blob import PIECE_BYTES, BlobOpener, Measured
from registry_spooler.oci.digest import Digest


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that look like nothing, the same for the same seed."""
    return random.Random(seed).randbytes(size)


@dataclass
class MemoryReader:
    """A blob at hand as a `BlobReader`, of any kind that the archive side has."""

    content: bytes
    rewindable: bool = True
    knows_size: bool = True
    piece_bytes: int = PIECE_BYTES
    fails_at: int | None = None
    failure: Exception | None = None
    position: int = 0
    finished: bool = False
    rewinds: list[int] = field(default_factory=list)

    @property
    def size(self) -> int | None:
        return len(self.content) if self.knows_size else None

    @property
    def measured(self) -> Measured:
        if not self.finished:
            raise RuntimeError("measured before the end")
        return Measured(digest=Digest.of(self.content), size=len(self.content))

    async def read(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self.fails_at is not None and self.position >= self.fails_at:
            assert self.failure is not None
            raise self.failure
        piece = self.content[self.position : self.position + self.piece_bytes]
        self.position += len(piece)
        self.finished = self.finished or not piece
        return piece

    async def rewind(self, offset: int) -> None:
        if not self.rewindable:
            raise RuntimeError("this reader cannot go back")
        assert offset <= self.position
        self.rewinds.append(offset)
        self.position = offset


@dataclass
class Blob:
    """A blob that can be opened as often as one likes, and remembers how often it was."""

    content: bytes
    rewindable: bool = True
    knows_size: bool = True
    piece_bytes: int = PIECE_BYTES
    opened: int = 0
    readers: list[MemoryReader] = field(default_factory=list)

    @property
    def digest(self) -> Digest:
        return Digest("sha256", hashlib.sha256(self.content).hexdigest())

    @property
    def opener(self) -> BlobOpener:
        return self._open

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[MemoryReader]:
        self.opened += 1
        reader = MemoryReader(self.content, self.rewindable, self.knows_size, self.piece_bytes)
        self.readers.append(reader)
        yield reader
