"""One blob that a push has to deliver, and what a push asks of the registry.

`registry.RegistryClient` is one such registry; a client outside the cluster, which packs what the
registry lacks into a thin archive, is another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from registry_spooler.archive.compression import Compression, sniff
from registry_spooler.archive.formats.image import DockerImage, DockerLayer, layer_compression
from registry_spooler.archive.member_blob import Expectation
from registry_spooler.archive.opening import IndexedArchive
from registry_spooler.archive.streaming import Archive
from registry_spooler.archive.tar_header import Member
from registry_spooler.oci.blob import BlobOpener, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress


class UploadSink(Protocol):
    """An upload session, which becomes a blob only by `commit`. Several may be open at once."""

    async def send(self, reader: BlobReader, progress: Progress) -> Measured:
        """Send all that the reader gives; UploadLost when it has to start again."""

    async def commit(self, digest: Digest) -> None:
        """Make the bytes a blob."""

    async def cancel(self) -> None:
        """Drop the bytes. Idempotent, never raises, a no-op after `commit`."""


class Registry(Protocol):
    """The registry's side of a push. Every method raises RegistryError."""

    @property
    def pull_host(self) -> str:
        """Return the host by which nodes reach the registry, as image names begin; empty when it is not known."""

    def announce(self, reference: Reference, config: ImageConfig) -> None:
        """Take note of an image whose layers are compressed here, before these are sent."""

    async def blob_exists(self, repository: str, digest: Digest) -> int | None:
        """Return the blob's size in bytes, or None if the repository does not hold it."""

    async def mount_blob(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """Mount the blob from another repository; return whether that worked."""

    async def begin_upload(self, repository: str) -> UploadSink:
        """Open an upload session, which the caller commits or cancels."""

    async def put_blob(self, repository: str, open_reader: BlobOpener, progress: Progress) -> Measured:
        """Send a blob whose source can be read again."""

    async def put_bytes(self, repository: str, content: bytes, progress: Progress | None = None) -> Digest:
        """Send a small blob."""

    async def head_manifest(self, reference: Reference) -> Descriptor | None:
        """Return what the registry answers for a tag or a digest, or None if it has nothing."""

    async def get_manifest(self, reference: Reference) -> Manifest:
        """Return a manifest; NotFound when there is none."""

    async def put_manifest(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store a manifest under a tag or its digest."""

    async def put_companion(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store what speaks of the image that is tagged next, such as a signature, under a tag of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSpec:
    """A blob of an image. Equal specs are one blob, however often the image names it."""

    member: Member | None
    """None when the archive lacks it, so that only the registry can have it."""
    expect: Expectation
    compression: Compression = Compression.NONE
    """How it is compressed on the way; NONE sends it as it is."""
    inside: Compression = Compression.NONE
    """The member's own compression, if that is undone before."""
    hint: Digest | None = None
    """What the member's name says: its digest as it is sent, or the diff ID of what is to be compressed.

    The registry is asked for it, but a wrong one is no error.
    """
    media_type: str = ""
    """For a layer of a manifest that is made here, when it is known before the bytes are."""
    foreign: Descriptor | None = None
    """A layer that no registry need hold (a Windows base layer), as the archive describes it."""

    @property
    def likely_digest(self) -> Digest | None:
        """Return the digest to ask the registry for first, or None if the blob is compressed on the way."""
        return self.expect.digest or (self.hint if self.compression is Compression.NONE else None)

    @property
    def likely_diff_id(self) -> Digest | None:
        """Return the diff ID by which the layer cache may know what the layer was compressed to."""
        return (self.expect.diff_id or self.hint) if self.compression is not Compression.NONE else None

    @property
    def size(self) -> int:
        """Return about how many bytes have to be read for it."""
        return self.member.size if self.member is not None else self.expect.size or 0


def config_spec(config: ImageConfig) -> BlobSpec:
    """Return the blob that a config becomes whose bytes are in memory."""
    descriptor = config.descriptor
    expect = Expectation(digest=descriptor.digest, size=descriptor.size)
    return BlobSpec(member=None, expect=expect, media_type=descriptor.media_type)


async def docker_specs(
    image: DockerImage,
    archive: Archive,
    setting: Compression,
    kinds: dict[Member, Compression],
    *,
    repack: bool = False,
) -> tuple[BlobSpec, ...]:
    """Return the layers of a docker archive's image, the lowest first; a layer may come up twice.

    `kinds` says how a stream's members are compressed; an indexed archive is looked into. `repack`: layers that are
    compressed there are compressed anew.
    """
    return tuple([await _docker_spec(layer, archive, setting, kinds, repack=repack) for layer in image.layers])


async def _docker_spec(
    layer: DockerLayer,
    archive: Archive,
    setting: Compression,
    kinds: dict[Member, Compression],
    *,
    repack: bool,
) -> BlobSpec:
    member = layer.member
    if member is None:
        return _absent_spec(layer, archive)
    kind = sniff(await archive.head(member)) if isinstance(archive, IndexedArchive) else kinds[member]
    compression = layer_compression(member, kind, setting)
    if compression is not Compression.NONE:
        return BlobSpec(member=member, expect=Expectation(diff_id=layer.diff_id), compression=compression)
    if repack and kind is not Compression.NONE:
        return BlobSpec(member=member, expect=Expectation(diff_id=layer.diff_id), compression=setting, inside=kind)
    digest = layer.diff_id if kind is Compression.NONE else member.blob_digest
    expect = Expectation(digest=digest, diff_id=layer.diff_id, compression=kind)
    return BlobSpec(member=member, expect=expect, hint=layer.expected_digest, media_type=kind.layer_media_type)


def _absent_spec(layer: DockerLayer, archive: Archive) -> BlobSpec:
    """Return a layer that only the registry can have, or that none needs to have."""
    source = layer.source
    if source is not None and source.is_foreign and source.urls:
        return BlobSpec(member=None, expect=Expectation(digest=source.digest, size=source.size), foreign=source)
    if layer.expected_digest is None:
        raise archive.missing(f"the layer {layer.path!r}")
    kind = Compression.ZSTD if layer.path.endswith((".zst", ".tzst")) else Compression.GZIP
    expect = Expectation(digest=layer.expected_digest, diff_id=layer.diff_id)
    return BlobSpec(member=None, expect=expect, media_type=kind.layer_media_type)
