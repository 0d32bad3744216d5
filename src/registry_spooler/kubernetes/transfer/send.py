"""Sending from where the user is: an image's missing blobs to the registry, or a file into the spool directory.

The same engine pushes in the pod and here. Only its registry differs: here it is a `RemoteRegistry`, which asks
`registry-client` in the pod what is missing, and sends that. What plain layers were compressed to is remembered in
the user's cache directory by their diff IDs, so that the next push of the same image reads and sends nothing of them.

What arrived before a cut stays. The next attempt asks how much that is and for its checksum, compares it with the
file's own first bytes, and goes on behind them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

import anyio

from registry_spooler.aio import in_thread
from registry_spooler.archive.compression import Compression
from registry_spooler.archive.opening import is_image_archive
from registry_spooler.archive.source import FileSource, Source, source_of, unchanged
from registry_spooler.errors import SourceChanged, SourceUnreadable
from registry_spooler.kubernetes.cluster_errors import ExecCut, RemoteError
from registry_spooler.kubernetes.redial import Redial
from registry_spooler.kubernetes.remote_session import Input, PodSession, Remote
from registry_spooler.kubernetes.transfer.conversation import Conversation, conversing
from registry_spooler.kubernetes.transfer.dry_run import DryRun, PushPlan
from registry_spooler.kubernetes.transfer.layer_deltas import DeltaMode
from registry_spooler.kubernetes.transfer.link_rate import LinkRate
from registry_spooler.kubernetes.transfer.remote_registry import RemoteRegistry
from registry_spooler.kubernetes.transfer.thin_archive import sweep
from registry_spooler.kubernetes.wire import ArrivedMeanwhile, ChecksumMismatch, Document, NothingArrived
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.push.blob_spec import Registry
from registry_spooler.push.layer_cache import KnownBlobs, cache_directory
from registry_spooler.push.pusher import Pusher, PushOptions

if TYPE_CHECKING:
    from typing_extensions import Buffer


_QUESTIONS = 64
"""Blobs that are asked for at once: one question for most images. `RemoteRegistry` packs and sends far fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How to push."""

    compression: Compression = Compression.GZIP
    """For the plain layers of docker archives: the link is the slow part."""
    streams: int = 3
    """Blobs on their way at once. One connection seldom fills a link on which the far side acknowledges late."""
    delta: DeltaMode = DeltaMode.AUTO
    """Which layers go as a recipe, for what the registry has of them."""
    repack: bool = False
    """Compress the layers anew that are compressed in the archive: see `push.pusher.PushOptions`."""
    cache: Path | None = None
    """Where to remember layers; None is the user's cache directory."""

    @property
    def folder(self) -> Path:
        """Where to remember layers, and to keep blobs that cannot be read twice until they are sent."""
        return self.cache or cache_directory()


async def send(
    session: PodSession,
    source: Source,
    reference: Reference | None,
    progress: Progress,
    *,
    is_archive: bool | None = True,
    options: SendOptions = SendOptions(),
) -> tuple[ImageResult, ...]:
    """Push an archive's image to `reference` (None: every image to where the archive says), or a raw file.

    Returns when the registry answers for every tag. Raises ArchiveError, RegistryError, KubeError.
    """
    rate = LinkRate(options.folder / "links", session.cluster.server)
    await in_thread(rate.load)

    def registry(remote: Remote, conversation: Conversation) -> RemoteRegistry:
        return RemoteRegistry(
            remote,
            conversation,
            options.folder / "blobs",
            progress,
            redial=session.redial,
            streams=options.streams,
            delta=options.delta,
            rate=rate,
        )

    images = await _push(session, source, reference, progress, registry, is_archive=is_archive, options=options)
    await in_thread(rate.save)
    return images


async def plan(
    session: PodSession,
    source: Source,
    reference: Reference | None,
    *,
    is_archive: bool | None = True,
    options: SendOptions = SendOptions(),
) -> PushPlan:
    """Return what `send` would do, and send nothing. Errors as `send`."""
    progress = Progress()
    runs: list[DryRun] = []

    def registry(remote: Remote, conversation: Conversation) -> DryRun:
        folder = options.folder / "blobs"
        asked = RemoteRegistry(remote, conversation, folder, progress, redial=session.redial, mounts=False)
        runs.append(DryRun(asked))
        return runs[-1]

    images = await _push(session, source, reference, progress, registry, is_archive=is_archive, options=options)
    return PushPlan(
        images=images,
        replaces=runs[-1].replaces,
        send=runs[-1].send,
        existing_blobs=progress.blobs_existing,
        existing_bytes=progress.bytes_skipped,
    )


async def _push(
    session: PodSession,
    source: Source,
    reference: Reference | None,
    progress: Progress,
    registry: Callable[[Remote, Conversation], Registry],
    *,
    is_archive: bool | None,
    options: SendOptions,
) -> tuple[ImageResult, ...]:
    known = KnownBlobs(options.folder / "layers")
    await known.trim()
    await sweep(options.folder / "blobs")
    check = unchanged(source)

    if is_archive is None:
        is_archive = not isinstance(source, FileSource) or await is_image_archive(source)

    async def work(remote: Remote) -> tuple[ImageResult, ...]:
        async with conversing(remote) as conversation:
            return await push(registry(remote, conversation))

    async def push(registry: Registry) -> tuple[ImageResult, ...]:
        push_options = PushOptions(
            compression=options.compression, hashes=True, transfers=_QUESTIONS, repack=options.repack
        )
        pusher = Pusher(registry, known, push_options, anyio.Semaphore(_QUESTIONS))
        if is_archive or not isinstance(source, FileSource):
            return await pusher.push_archive(source, reference, progress, before_tag=check)
        if reference is None:
            raise SourceUnreadable(source.name, "a file that is no archive names no image; give a name")
        return (await pusher.push_file(source, reference, progress, before_tag=check),)

    if isinstance(source, FileSource):
        return await session.use(work)
    return await work(await session.remote())  # a pipe cannot be read again for another pod


@asynccontextmanager
async def open_source(file: Path | BinaryIO) -> AsyncGenerator[Source]:
    """A path, or an open file such as standard input; either may turn out to be a pipe."""
    if not isinstance(file, Path):
        yield _open_file_source(file)
        return
    try:
        opened = await in_thread(_open, file)
    except OSError as exc:
        raise SourceUnreadable(str(file), exc.strerror or str(exc)) from exc
    try:
        yield source_of(opened.fileno(), file.name)
    finally:
        opened.close()


def _open_file_source(file: BinaryIO) -> Source:
    name = getattr(file, "name", None)
    return source_of(file.fileno(), name if isinstance(name, str) else "standard input")


def _open(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


OnSent = Callable[[int, int], None]
"""Told how many bytes have arrived or been sent, and of how many."""

_LOOKS_MAX: Final = 10
"""At what has arrived: it changes only while a call that was cut off is still starting or ending."""


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
                if exc.kind == NothingArrived.__name__ and self._finishing is not None:
                    return self._finishing  # as above, by a call that was believed to be dead
                if exc.kind == ChecksumMismatch.__name__ and not self._distrust:
                    self._distrust = True
                elif exc.kind != ArrivedMeanwhile.__name__:
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
