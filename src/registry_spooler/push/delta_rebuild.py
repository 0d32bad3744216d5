"""A layer made from a recipe and its base, compressed as its sender does, and stored.

Three things go on at once: the event loop fetches the base, one thread inflates it, makes the layer of it and checks
its diff ID, and another compresses what is made. Nothing becomes a blob whose diff ID is not the one that its sender
named. The sender may not know the digest yet: it is told, and compares it with its own before it tags anything.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio
import anyio.abc
import anyio.from_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from registry_spooler.aio import in_own_thread, in_thread, task_group
from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import Compress, Expectation, Hash, MemberReader
from registry_spooler.archive.tar_header import Kind, Member
from registry_spooler.delta.rebuild import in_blocks, layer_bytes_of, rebuild
from registry_spooler.errors import ArchiveError, DeltaError, RegistryError, SpoolerError
from registry_spooler.folder import Folder
from registry_spooler.oci.blob import PIECE_BYTES, BlobReader, Measured
from registry_spooler.push.delta_bases import PlainBytes

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from registry_spooler.oci.digest import Digest
    from registry_spooler.progress import Progress
    from registry_spooler.registry.registry_client import RegistryClient

ROOM_KEPT_BYTES: Final = 256 << 20
"""What a delta leaves free on the volume of the spool directory."""
_LOOK_BYTES: Final = 4 << 20
_AHEAD_PIECES: Final = 2
"""Of the base, and of the layer that is made; up to 1 MiB each."""


@contextmanager
def scratch_folder(directory: Path) -> Iterator[Path | None]:
    """Open the spool directory's folder for what is in the making; None is the system's own for temporary files."""
    try:
        with Folder.open(directory) as spool:
            folder = spool.subfolder(".work")
    except OSError:
        yield None
        return
    with folder:
        yield Path(f"/proc/self/fd/{folder.fd}")


class ScratchFile(io.RawIOBase, BinaryIO):
    """A file without a name, as long as the volume has room: DeltaError before it has none for others."""

    def __init__(self, folder: Path | None) -> None:
        try:
            self._file: BinaryIO = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with this
        except OSError as exc:
            raise DeltaError(f"there is no room to work in: {exc.strerror}") from exc
        self._unlooked = _LOOK_BYTES

    def write(self, content: Buffer, /) -> int:
        """Write all of it."""
        view = memoryview(content).cast("B")
        self._unlooked += len(view)
        if self._unlooked >= _LOOK_BYTES:
            self._unlooked = 0
            status = os.fstatvfs(self._file.fileno())
            if status.f_bavail * status.f_frsize < ROOM_KEPT_BYTES:
                raise DeltaError("the volume has no room for it")
        try:
            at = 0
            while at < len(view):
                at += self._file.write(view[at:])
        except OSError as exc:
            raise DeltaError(f"it cannot be kept while it is worked on: {exc.strerror}") from exc
        return len(view)

    def read(self, count: int = -1, /) -> bytes:
        """Read bytes from where it stands."""
        return self._file.read(count)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a byte."""
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Cut it off."""
        return self._file.truncate(size)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
        super().close()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOrder:
    """The layer that is to be made, and what from. `digest` and `size` are None while the sender does not know them."""

    repository: str
    base: Digest
    diff_id: Digest
    compression: Compression
    digest: Digest | None = None
    size: int | None = None

    @property
    def expectation(self) -> Expectation:
        """What it must turn out to be."""
        return Expectation(digest=self.digest, size=self.size, diff_id=self.diff_id)


class _Downloads:
    """Reads blobs for a thread: tasks of the event loop fetch ahead, and the thread inflates what has come."""

    def __init__(self, client: RegistryClient, order: LayerOrder, tasks: anyio.abc.TaskGroup) -> None:
        self._client = client
        self._order = order
        self._tasks = tasks
        self._error: RegistryError | None = None

    def plain(self) -> Iterator[Buffer]:
        """Yield the base's plain bytes; called in a thread, which waits for them."""
        received = anyio.from_thread.run_sync(self._begin)
        inflater = PlainBytes()
        while True:
            try:
                piece = anyio.from_thread.run(received.receive)
            except anyio.EndOfStream:
                if self._error is not None:
                    raise self._error from None
                return
            yield from inflater.feed(piece)

    def _begin(self) -> MemoryObjectReceiveStream[bytes]:
        send, receive = anyio.create_memory_object_stream[bytes](_AHEAD_PIECES)
        self._tasks.start_soon(self._fetch, send, receive)
        return receive

    async def _fetch(self, send: MemoryObjectSendStream[bytes], receive: MemoryObjectReceiveStream[bytes]) -> None:
        # The receiving end is closed here too, as the thread may be through before the base is.
        with receive, send:
            try:
                async with self._client.open_blob(self._order.repository, self._order.base) as pieces:
                    async for piece in pieces:
                        await send.send(piece)
            except RegistryError as exc:
                self._error = exc
            send.close()
            await anyio.sleep_forever()


class _RebuiltMember(MemberReader):
    """What a recipe makes, as the member that it was in the sender's archive."""

    _seekable = False

    def __init__(
        self, member: Member, codec: Compress, blocks: MemoryObjectReceiveStream[bytes | SpoolerError]
    ) -> None:
        super().__init__(member, codec)
        self._blocks = blocks
        self._block = b""

    async def _wait(self) -> None:
        block = await self._blocks.receive()
        if isinstance(block, SpoolerError):
            raise block
        self._block = block

    def _take(self, count: int) -> bytes:
        self._position += len(self._block)
        return self._block


def _checked(blocks: Iterator[bytes], diff_id: Digest) -> Iterator[bytes]:
    """Yield the blocks, the last one only when all have the diff ID; else DeltaError."""
    hasher, held = Hash(diff_id), b""
    for block in blocks:
        hasher.update(block)
        if held:
            yield held
        held = block
    if hasher.digest != diff_id:
        raise DeltaError(f"what it makes is another layer (its diff ID is {hasher.digest}, not {diff_id})")
    if held:
        yield held


async def _make(blocks: Iterator[bytes], send: MemoryObjectSendStream[bytes | SpoolerError]) -> None:
    """Have a thread make the layer, a few blocks ahead of whoever takes them."""
    try:
        while block := await in_own_thread(next, blocks, b""):
            await send.send(block)
        await send.send(b"")
    except SpoolerError as exc:
        await send.send(exc)


async def rebuild_layer(
    client: RegistryClient, order: LayerOrder, recipe: BinaryIO, aside: BinaryIO, progress: Progress
) -> Measured:
    """Store the layer that a recipe makes; DeltaError when it is not the one that it should be, RegistryError.

    `recipe` and `aside` are files; the second is empty.
    """

    @asynccontextmanager
    async def opener() -> AsyncIterator[BlobReader]:
        await in_thread(recipe.seek, 0)
        size = await in_thread(layer_bytes_of, recipe)
        await in_thread(_empty, aside)
        await in_thread(recipe.seek, 0)
        codec = Compress(order.expectation, order.compression, name="the layer", hashes_plain=False)
        send, receive = anyio.create_memory_object_stream["bytes | SpoolerError"](_AHEAD_PIECES)
        async with task_group() as tasks:
            downloads = _Downloads(client, order, tasks)
            blocks = in_blocks(rebuild(recipe, downloads.plain, aside), PIECE_BYTES)
            tasks.start_soon(_make, _checked(blocks, order.diff_id), send)
            with send, receive:
                yield _RebuiltMember(Member("the layer", Kind.FILE, size, 0), codec, receive)
            tasks.cancel_scope.cancel()

    try:
        return await client.put_blob(order.repository, opener, progress)
    except ArchiveError as exc:
        raise DeltaError(f"what it makes is another layer ({exc})") from exc


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate(0)
