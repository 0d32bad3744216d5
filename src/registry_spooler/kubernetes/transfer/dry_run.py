"""A push that sends nothing: the same engine asks what the registry lacks, and what it would send is written down.

Layers that a push would compress are compressed here as well: only that tells their size and their digest. Blobs that
the pod would mount from another repository count as sent, because a mount would change the registry; and layers count
whole, of which a push may send only what is new in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from registry_spooler.kubernetes.transfer.thin_archive import measure
from registry_spooler.oci.blob import BlobOpener, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.oci.reference import Reference

if TYPE_CHECKING:
    from registry_spooler.kubernetes.transfer.remote_registry import RemoteRegistry
    from registry_spooler.progress import ImageResult, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What a push of one archive would do. `send` has the sizes in bytes of the blobs and manifests it would send."""

    images: tuple[ImageResult, ...]
    replaces: dict[Reference, Digest | None]
    """What the images' tags have now; None for a tag that is new."""
    send: dict[Digest, int]
    existing_blobs: int
    """Those that the registry has already."""
    existing_bytes: int

    @property
    def send_bytes(self) -> int:
        """How much would be sent."""
        return sum(self.send.values())

    def to_json(self) -> dict[str, Any]:
        """Return the plan for programs."""
        images = [
            {
                "reference": str(image.reference),
                "digest": str(image.digest),
                "replaces": str(found) if (found := self.replaces[image.reference]) else None,
                "missing": list(image.missing),
            }
            for image in self.images
        ]
        return {
            **(images[0] if len(images) == 1 else {"images": images}),
            "send": [{"digest": str(digest), "size_bytes": size} for digest, size in self.send.items()],
            "send_bytes": self.send_bytes,
            "existing_blobs": self.existing_blobs,
            "existing_bytes": self.existing_bytes,
        }


@dataclass(slots=True)
class DryRun:
    """`push.Registry` that asks another one, and sends nothing."""

    registry: RemoteRegistry
    send: dict[Digest, int] = field(default_factory=dict)
    replaces: dict[Reference, Digest | None] = field(default_factory=dict)
    pull_host: str = ""
    _put: dict[Reference, Descriptor] = field(default_factory=dict)

    def announce(self, reference: Reference, config: ImageConfig) -> None:
        """Nothing: layers are measured whole."""

    async def blob_exists(self, repository: str, digest: Digest) -> int | None:
        """The blob's size in bytes; None when the repository does not hold it, and would not have been sent it."""
        if digest in self.send:
            return self.send[digest]
        return await self.registry.blob_exists(repository, digest)

    async def mount_blob(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """False: nothing is changed."""
        return False

    async def begin_upload(self, repository: str) -> _DryUpload:
        """Open a session that only measures."""
        return _DryUpload(self)

    async def put_blob(self, repository: str, open_reader: BlobOpener, progress: Progress) -> Measured:
        """Measure a blob."""
        async with open_reader() as reader:
            measured = await measure(reader)
        self.send[measured.digest] = measured.size
        return measured

    async def put_bytes(self, repository: str, content: bytes, progress: Progress | None = None) -> Digest:
        """Write down a small blob."""
        digest = Digest.of(content)
        self.send[digest] = len(content)
        return digest

    async def head_manifest(self, reference: Reference) -> Descriptor | None:
        """What would have been put, or else what the registry has."""
        return self._put.get(reference) or await self.registry.head_manifest(reference)

    async def get_manifest(self, reference: Reference) -> Manifest:
        """A manifest of the registry; NotFound when it has none."""
        return await self.registry.get_manifest(reference)

    async def put_manifest(self, reference: Reference, manifest: Manifest) -> Digest:
        """Write down a manifest, unless the tag has it already."""
        if reference.tag is not None:
            there = await self.registry.head_manifest(reference)
            self.replaces[reference] = there.digest if there is not None else None
        if self.replaces.get(reference) != manifest.digest:
            self.send[manifest.digest] = manifest.size
        self._put[reference] = manifest.descriptor()
        return manifest.digest

    async def put_companion(self, reference: Reference, manifest: Manifest) -> Digest:
        """Write down what speaks of an image."""
        self.send[manifest.digest] = manifest.size
        self._put[reference] = manifest.descriptor()
        return manifest.digest


class _DryUpload:
    """A blob from a source that comes by once: it counts when it is committed."""

    def __init__(self, dry_run: DryRun) -> None:
        self._dry_run = dry_run
        self._measured: Measured | None = None

    async def send(self, reader: BlobReader, progress: Progress) -> Measured:
        """Measure all that the reader gives."""
        self._measured = await measure(reader)
        return self._measured

    async def commit(self, digest: Digest) -> None:
        """Count the blob."""
        if self._measured is None or digest != self._measured.digest:
            raise RuntimeError("committed before it was measured")
        self._dry_run.send[digest] = self._measured.size

    async def cancel(self) -> None:
        """There is nothing to give up."""
