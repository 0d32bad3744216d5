"""Pulling an image from afar: what `registry-client pull` writes in the pod, into a file here.

The pod verifies every byte against the image's digests, and its exit code says whether all of them came. A file
appears under its name only then; until it does, a broken connection starts it again. What goes to a pipe cannot be
taken back, so there a broken connection is an error.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import anyio

from registry_spooler.kube.remote import Remote
from registry_spooler.kube.session import PodSession
from registry_spooler.threads import in_thread

WRITE_BYTES: Final = 1 << 20
"""What is collected before it is written: messages are small, and each write is a hand-off to a thread."""

OnBytes = Callable[[int], None]
"""Told how many bytes have come in this attempt."""


async def fetch(
    session: PodSession, arguments: Sequence[str], target: Path | BinaryIO, on_bytes: OnBytes = lambda _: None
) -> int:
    """Run a command in the pod and write its output to `target`; the number of bytes. KubeError, OSError."""
    if not isinstance(target, Path):
        writer = _Writer(target, on_bytes)
        return await writer.run(await session.remote(), arguments)
    file, partial = await in_thread(_create, target)
    try:
        writer = _Writer(file, on_bytes)
        size = await session.ask(lambda remote: writer.run_again(remote, arguments))
        await in_thread(_finish, file, partial, target)
        return size
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(_discard, file, partial)


class _Writer:
    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self._buffer = bytearray()
        self._size = 0

    async def run_again(self, remote: Remote, arguments: Sequence[str]) -> int:
        """As `run`, from the file's beginning."""
        await in_thread(self._rewind)
        return await self.run(remote, arguments)

    async def run(self, remote: Remote, arguments: Sequence[str]) -> int:
        """Run the command and write what it writes; the number of bytes."""
        await remote.call(*arguments, on_stdout=self._take)
        await self._flush()
        return self._size

    async def _take(self, data: bytes) -> None:
        self._buffer += data
        self._size += len(data)
        self._on_bytes(self._size)
        if len(self._buffer) >= WRITE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        piece, self._buffer = self._buffer, bytearray()
        await in_thread(_write_all, self._file, piece)

    def _rewind(self) -> None:
        self._buffer.clear()
        self._size = 0
        self._file.seek(0)
        self._file.truncate()


def _write_all(file: BinaryIO, piece: bytearray) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) or 0 :]
    file.flush()


def _create(target: Path) -> tuple[BinaryIO, Path]:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}-")
    return os.fdopen(descriptor, "w+b", buffering=0), Path(name)


def _finish(file: BinaryIO, partial: Path, target: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    file.close()
    partial.chmod(0o666 & ~umask)
    partial.replace(target)


def _discard(file: BinaryIO, partial: Path) -> None:
    file.close()
    partial.unlink(missing_ok=True)
