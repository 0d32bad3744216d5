"""An OCI archive made here of whatever the push engine reads, as a node's container runtime imports it.

The engine pushes into a `LocalLayout` as it pushes into a registry: blobs go to temporary files, manifests stay in
memory. What comes of it is one tar with an `index.json` that names each image in full, as a kubelet asks for it, and
a `manifest.json` for runtimes that load docker archives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self

import orjson

from registry_spooler.archive.formats.image import ArchiveImage
from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.source import FileSource, Source
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar_header import Kind
from registry_spooler.errors import ArchiveError, NotFound
from registry_spooler.kubernetes.remote_session import Input
from registry_spooler.kubernetes.transfer.thin_archive import (
    ArchivePart,
    PackedBlob,
    content_part,
    pack,
)
from registry_spooler.oci.blob import BlobOpener, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.layout_writer import (
    INDEX_PATH,
    LAYOUT,
    LAYOUT_PATH,
    blob_path,
    image_entry,
    index_document,
    name_annotations,
)
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.oci.reference import ImageName, Reference
from registry_spooler.progress import Progress
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.pusher import Pusher, PushOptions

_DEFAULT_HOST: Final = "docker.io"


class LocalLayout:
    """The push engine's `Registry` in a folder of temporary files. An async context manager; memory holds manifests."""

    def __init__(self, folder: Path) -> None:
        self.pull_host = ""
        """Nodes pull nothing of what they hold."""
        self.names: dict[Reference, str] = {}
        """The full names of images, by where the engine puts them."""
        self._folder = folder
        self._stack = AsyncExitStack()
        self._blobs: dict[Digest, ArchivePart] = {}
        self._manifests: dict[Digest, Manifest] = {}
        self._answers: dict[Reference, Manifest] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def add(self, source: Source, name: str | None, progress: Progress) -> tuple[str, ...]:
        """Take the image called `name`, or with None every image of an archive; return their full names. ArchiveError.

        A pipe is read once, so it needs a name.
        """
        if name is not None:
            wanted = [ImageName.parse(name)]
        elif isinstance(source, FileSource):
            wanted = await _names(source)
        else:
            raise ValueError("a pipe needs a name")
        self.names |= {known.reference: full_name(known) for known in wanted}
        pusher = Pusher(self, KnownBlobs(None), PushOptions(hashes=True))
        results = await pusher.push_archive(source, wanted[0].reference if name is not None else None, progress)
        return tuple(self.names[result.reference] for result in results)

    def archive(self) -> Input:
        """Everything that was added, as one tar."""
        images = {
            name: self._answers[reference] for reference, name in self.names.items() if reference in self._answers
        }
        entries = [image_entry(manifest.descriptor(), name_annotations(name)) for name, manifest in images.items()]
        docker = [item for name, manifest in images.items() for item in _docker_item(name, manifest)]
        return pack(
            [
                content_part(LAYOUT_PATH, LAYOUT),
                content_part(INDEX_PATH, index_document(entries)),
                content_part("manifest.json", orjson.dumps(docker)),
                *(content_part(blob_path(digest), found.content) for digest, found in self._manifests.items()),
                *self._blobs.values(),
            ]
        )

    def announce(self, reference: Reference, config: ImageConfig) -> None:
        """Nothing: the archive holds its layers whole."""

    async def blob_exists(self, repository: str, digest: Digest) -> int | None:
        """The blob's size in bytes; None when it has not been added."""
        part = self._blobs.get(digest)
        return part.size if part is not None else None

    async def mount_blob(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """There is one place for all blobs, and `blob_exists` has been asked."""
        return False

    async def begin_upload(self, repository: str) -> _LocalUpload:
        """Open a temporary file."""
        return _LocalUpload(self)

    async def put_blob(self, repository: str, open_reader: BlobOpener, progress: Progress) -> Measured:
        """Write a blob to a temporary file."""
        async with open_reader() as reader:
            part, measured = await self.write(reader)
        self.keep(part, measured.digest)
        return measured

    async def put_bytes(self, repository: str, content: bytes, progress: Progress | None = None) -> Digest:
        """Keep a small blob."""
        digest = Digest.of(content)
        self.keep(content_part(blob_path(digest), content), digest)
        return digest

    async def head_manifest(self, reference: Reference) -> Descriptor | None:
        """What was put under a tag or a digest."""
        found = self._find(reference)
        return found.descriptor() if found is not None else None

    async def get_manifest(self, reference: Reference) -> Manifest:
        """The manifest that was put; NotFound when there is none."""
        found = self._find(reference)
        if found is None:
            raise NotFound("GET", str(reference), 404)
        return found

    async def put_manifest(self, reference: Reference, manifest: Manifest) -> Digest:
        """Keep a manifest; under a tag it is an image of the archive."""
        self._manifests[manifest.digest] = manifest
        self._answers[reference] = manifest
        return manifest.digest

    async def put_companion(self, reference: Reference, manifest: Manifest) -> Digest:
        """Leave it out of the archive: no runtime looks for signatures in its own store."""
        self._answers[reference] = manifest
        return manifest.digest

    async def write(self, reader: BlobReader) -> tuple[ArchivePart, Measured]:
        """Write a blob to a temporary file, which is removed when the context ends."""
        packed = PackedBlob(self._folder)
        self._stack.push_async_callback(packed.aclose)
        measured = await packed.write(reader)
        return packed.part(measured), measured

    def keep(self, part: ArchivePart, digest: Digest) -> None:
        """Make a blob of what was written."""
        self._blobs.setdefault(digest, part)

    def _find(self, reference: Reference) -> Manifest | None:
        return self._answers.get(reference) or (self._manifests.get(reference.digest) if reference.digest else None)


class _LocalUpload:
    """A blob that becomes one by `commit`."""

    def __init__(self, layout: LocalLayout) -> None:
        self._layout = layout
        self._part: ArchivePart | None = None

    async def send(self, reader: BlobReader, progress: Progress) -> Measured:
        """Write all that the reader gives."""
        self._part, measured = await self._layout.write(reader)
        return measured

    async def commit(self, digest: Digest) -> None:
        """Make it a blob of the archive."""
        if self._part is None:
            raise RuntimeError("committed before it was written")
        self._layout.keep(self._part, digest)

    async def cancel(self) -> None:
        """Leave the file to the layout, which removes it."""


def full_name(name: ImageName) -> str:
    """Return the name as a kubelet spells it: with its host and its tag (`app` is `docker.io/library/app:latest`)."""
    if name.host is not None:
        return f"{name.host}/{name.repository}:{name.tag or 'latest'}"
    repository = name.repository if "/" in name.repository else f"library/{name.repository}"
    return f"{_DEFAULT_HOST}/{repository}:{name.tag or 'latest'}"


async def archive_names(source: Source) -> list[str]:
    """Return the full names of a file's images. ArchiveError."""
    if not isinstance(source, FileSource):
        raise ArchiveError("a pipe cannot be read twice; save it to a file first")
    return [full_name(name) for name in await _names(source)]


def _docker_item(name: str, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """The image's entry in a docker archive's manifest.json; a list of platforms has none."""
    if manifest.config is not None:
        yield {
            "Config": blob_path(manifest.config.digest),
            "RepoTags": [name],
            "Layers": [blob_path(layer.digest) for layer in manifest.layers],
        }


async def _names(source: FileSource) -> list[ImageName]:
    """What a file calls its images."""
    async with open_archive(source) as archive:
        if isinstance(archive, StreamedArchive):
            async for member in archive.members():
                if member.kind is Kind.FILE and archive.is_document:
                    await archive.keep()
        images: tuple[ArchiveImage, ...] = await archive.images()
    return [name for image in images for name in image.called.names]
