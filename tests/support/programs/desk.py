"""Where the tests of pushing work: archives are written to files, and files are pushed."""

from __future__ import annotations

from pathlib import Path

from registry_spooler.archive.source import FileSource
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.push.blob_spec import Registry
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.pusher import Pusher, PushOptions
from support.images.archive_parts import COMPRESSORS

DEFAULTS = PushOptions()


class Desk:
    """Pushes into one registry with one memory; `progress` is the last push's."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.folder = folder
        self.known = KnownBlobs(folder / "state")
        self.progress = Progress()

    async def push(self, tar: bytes, to: str, *, suffix: str = ".tar", options: PushOptions = DEFAULTS) -> ImageResult:
        """Push one image."""
        (result,) = await self.push_path(self.write(tar, suffix), to, options=options)
        return result

    async def push_bundle(self, tar: bytes, *, suffix: str = ".tar") -> tuple[ImageResult, ...]:
        return await self.push_path(self.write(tar, suffix), None)

    async def push_path(
        self, path: Path, to: str | None, *, options: PushOptions = DEFAULTS
    ) -> tuple[ImageResult, ...]:
        self.progress = Progress()
        reference = Reference.parse(to) if to is not None else None
        async with FileSource.open(path) as source:
            return await Pusher(self.registry, self.known, options).push_archive(source, reference, self.progress)

    async def push_file(self, path: Path, to: str) -> ImageResult:
        self.progress = Progress()
        async with FileSource.open(path) as source:
            return await Pusher(self.registry, self.known).push_file(source, Reference.parse(to), self.progress)

    def write(self, tar: bytes, suffix: str) -> Path:
        path = self.folder / f"archive{suffix}"
        path.write_bytes(COMPRESSORS[suffix](tar))
        return path
