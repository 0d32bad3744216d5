"""Putting a file into the spool directory from afar: `NAME~` piece by piece, then compared, then renamed.

What arrived before a cut stays. The next attempt asks how much that is and for its checksum, compares it with the
file's own first bytes, and goes on behind them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from registry_spooler.blob import PIECE_BYTES
from registry_spooler.digest import Digest
from registry_spooler.errors import SourceChanged
from registry_spooler.kube.document import Document
from registry_spooler.kube.errors import ExecCut, RemoteError
from registry_spooler.kube.redial import Redial
from registry_spooler.kube.remote import Input, Remote
from registry_spooler.threads import in_thread

if TYPE_CHECKING:
    from typing_extensions import Buffer

OnSent = Callable[[int, int], None]
"""Told how many bytes have arrived or been sent, and of how many."""

_LOOKS_MAX: Final = 10
"""At what has arrived: it changes only while a call that was cut off is still starting or ending."""

# What `registry-client deposit` calls its errors.
_MISMATCH: Final = "ChecksumMismatch"
_NOTHING_ARRIVED: Final = "NothingArrived"
_ARRIVED_MEANWHILE: Final = "ArrivedMeanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A file that the spooler has been given. `since` is the pod's time just before (RFC 3339), for `wait`."""

    name: str
    size: int
    digest: Digest
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrived:
    """What the pod has of the file: `size` is None when there is nothing. `now` is its time (RFC 3339)."""

    size: int | None
    sha256: str
    now: str

    @classmethod
    def read(cls, answer: Document) -> Self:
        size = answer["size"]
        return cls(
            size=None if size.value is None else size.count(),
            sha256=answer["sha256"].text_or_none(),
            now=answer["now"].text(),
        )


async def publish(
    remote: Remote, path: Path, name: str, *, redial: Redial, on_sent: OnSent = lambda *_: None
) -> Published:
    """Write the file into the spool directory as `name`.

    RemoteError when the name or the directory does not take it, SourceChanged when the file changes meanwhile.
    """
    file = await in_thread(path.open, "rb")
    try:
        publication = _Publication(remote, file, name, os.fstat(file.fileno()).st_size, on_sent)
        return await redial.run(publication.attempt, progress=lambda: publication.arrived)
    finally:
        file.close()


class _Publication:
    def __init__(self, remote: Remote, file: BinaryIO, name: str, size: int, on_sent: OnSent) -> None:
        self._remote = remote
        self._file = file
        self._name = name
        self._size = size
        self._on_sent = on_sent
        self.arrived = 0
        """Bytes that the pod was seen to have."""
        self._finishing: Published | None = None
        self._distrust = False
        """Has something arrived that looked like ours and was not?"""

    async def attempt(self) -> Published:
        """Send what has not arrived, and hand the file over; may be called again after a cut."""
        for _ in range(_LOOKS_MAX):
            arrived = _Arrived.read(await self._deposit("--probe", "--size", str(self._size)))
            if arrived.size is None and self._finishing is not None:
                return self._finishing  # renamed before the connection broke: nobody else takes `NAME~` away
            try:
                return await self._send_and_finish(arrived)
            except RemoteError as exc:
                if exc.kind == _NOTHING_ARRIVED and self._finishing is not None:
                    return self._finishing  # as above, by a call that was believed to be dead
                if exc.kind == _MISMATCH and not self._distrust:
                    self._distrust = True
                elif exc.kind != _ARRIVED_MEANWHILE:
                    raise
        raise ExecCut(self._remote.container.pod, f"others keep writing {self._name!r}")

    async def _send_and_finish(self, arrived: _Arrived) -> Published:
        offset, checksum = await in_thread(self._compare, arrived)
        self.arrived = max(self.arrived, offset)
        since = arrived.now
        if offset < self._size or arrived.size != self._size:
            since = await self._append(offset, arrived.size, checksum)
        digest = Digest("sha256", checksum.hexdigest())
        self._finishing = Published(name=self._name, size=self._size, digest=digest, since=since)
        await self._deposit("--finish", digest.hex, "--size", str(self._size))
        return self._finishing

    async def _append(self, offset: int, arrived: int | None, checksum: hashlib._Hash) -> str:
        stdin = Input(self._size - offset, self._pieces(offset, checksum))
        seen = ("--arrived", str(arrived)) if arrived is not None else ()
        answer = await self._deposit("--offset", str(offset), "--size", str(self._size), *seen, stdin=stdin)
        return answer["now"].text()

    def _compare(self, arrived: _Arrived) -> tuple[int, hashlib._Hash]:
        """Where to go on, and the checksum up to there; from the start when what arrived is not this file's start."""
        checksum = hashlib.sha256()
        size = arrived.size
        if not size or size > self._size or self._distrust:
            return 0, checksum
        self._file.seek(0)
        left = size
        while left and (piece := self._file.read(min(left, PIECE_BYTES))):
            checksum.update(piece)
            left -= len(piece)
        if left or checksum.hexdigest() != arrived.sha256:
            return 0, hashlib.sha256()
        return size, checksum

    async def _pieces(self, offset: int, checksum: hashlib._Hash) -> AsyncGenerator[Buffer]:
        self._on_sent(offset, self._size)
        await in_thread(self._file.seek, offset)
        while offset < self._size:
            piece = await in_thread(self._read, min(PIECE_BYTES, self._size - offset), checksum)
            if not piece:
                raise SourceChanged(self._name)
            yield piece
            offset += len(piece)
            self._on_sent(offset, self._size)
        if os.fstat(self._file.fileno()).st_size != self._size:
            raise SourceChanged(self._name)

    def _read(self, size: int, checksum: hashlib._Hash) -> bytes:
        piece = self._file.read(size)
        checksum.update(piece)
        return piece

    async def _deposit(self, *arguments: str, stdin: Input | None = None) -> Document:
        return await self._remote.call_json("deposit", *arguments, "--", self._name, stdin=stdin)
