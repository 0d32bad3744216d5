"""Pushing from where the user is: the engine reads the archive here, and a pod's registry gets what it lacks.

The same engine pushes in the pod and here. Only its registry differs: here it is a `ThinRegistry`, which asks
`registry-client` in the pod what is missing, and sends that. What plain layers were compressed to is remembered in
the user's cache directory by their diff IDs, so that the next push of the same image reads and sends nothing of them.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from registry_spooler.archive import Compression, FileSource, PipeSource, Source, is_image_archive
from registry_spooler.errors import SourceChanged, SourceUnreadable
from registry_spooler.kube.packed import sweep
from registry_spooler.kube.remote import Remote
from registry_spooler.kube.session import PodSession
from registry_spooler.kube.thin import ThinRegistry
from registry_spooler.progress import Progress
from registry_spooler.push import KnownBlobs, Pusher, PushOptions
from registry_spooler.reference import Reference
from registry_spooler.result import ImageResult
from registry_spooler.threads import in_thread

_QUESTIONS = 64
"""Blobs that are asked for at once: one question for most images. What is packed and sent at once is far less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How to push."""

    compression: Compression = Compression.GZIP
    """For the plain layers of docker archives: the link is the slow part."""
    streams: int = 3
    """Blobs on their way at once. One connection seldom fills a link on which the far side acknowledges late."""
    cache: Path | None = None
    """Where to remember layers; None is the user's cache directory."""


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
    cache = options.cache or cache_directory()
    known = KnownBlobs(cache / "layers")
    await known.trim()
    await sweep(cache / "blobs")
    check = _unchanged(source)

    if is_archive is None:
        is_archive = not isinstance(source, FileSource) or await is_image_archive(source)

    async def work(remote: Remote) -> tuple[ImageResult, ...]:
        registry = ThinRegistry(remote, cache / "blobs", progress, redial=session.redial, streams=options.streams)
        pusher = Pusher(
            registry, known, PushOptions(compression=options.compression, hashes=True, transfers=_QUESTIONS)
        )
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
        yield _source(opened.fileno(), file.name)
    finally:
        opened.close()


def cache_directory() -> Path:
    """Where this user's programs keep what they can do without, for this project."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "registry-spooler"


def _open_file_source(file: BinaryIO) -> Source:
    name = getattr(file, "name", None)
    return _source(file.fileno(), name if isinstance(name, str) else "standard input")


def _open(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


def _source(fd: int, name: str) -> Source:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise SourceUnreadable(name, "it is a directory; only files are pushed")
    return FileSource(fd, name=name) if stat.S_ISREG(mode) else PipeSource(fd, name=name)


def _unchanged(source: Source) -> Callable[[], None]:
    """A look at the file before its image is tagged: what was read must be one state of it."""
    before = _state(source.fd)

    def check() -> None:
        if _state(source.fd) != before:
            raise SourceChanged(source.name)

    return check


def _state(fd: int) -> tuple[int, int] | None:
    status = os.fstat(fd)
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
