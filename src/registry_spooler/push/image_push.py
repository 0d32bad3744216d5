"""One image on its way to one tag: what it needs, and the manifest that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.formats.image import ArchiveImage, DockerImage, OciImage, Referrer, select_image
from registry_spooler.archive.member_blob import Expectation
from registry_spooler.archive.opening import IndexedArchive
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar_header import Member
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, LeftOut
from registry_spooler.push.blob_spec import BlobSpec, Registry, docker_needs
from registry_spooler.push.blobs import RepositoryUploader, RepositoryUploaders
from registry_spooler.push.plan import Plan, image_manifest, plan_image, plan_or_lack

BUNDLE_BLOBS_MAX: Final = 100_000
"""Blobs of all images of a bundle, shared ones counted for each of their names."""

Archive = IndexedArchive | StreamedArchive


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePush:
    """An image and its tag. `origin` is the OCI graph it is pushed from, or the config of a docker archive's image."""

    reference: Reference
    delivery: RepositoryUploader
    needs: tuple[BlobSpec, ...]
    """In the order of the layers for a docker archive's image, where one may come up twice."""
    origin: Plan | ImageConfig
    platforms: tuple[str, ...] = ()
    children: tuple[Manifest, ...] = field(default=())
    """Pushed by digest before the manifest that is tagged."""
    companions: dict[str, Manifest] = field(default_factory=dict)
    """What speaks of the image and is found by a tag of its own, by that tag."""
    referrers: int = 0
    """How many manifests speak of the image."""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def repository(self) -> str:
        """Where its blobs go."""
        return self.reference.repository

    def manifest(self) -> Manifest:
        """What goes under the tag; RuntimeError before every need is delivered."""
        if isinstance(self.origin, Plan):
            return self.origin.root
        layers = []
        for need in self.needs:
            layer = need.foreign or self.delivery.delivered(need)
            if layer is None:
                raise RuntimeError(f"a layer of {self.reference} has not been delivered")
            layers.append(layer)
        return image_manifest(self.origin.descriptor, tuple(layers))

    def result(self, root: Manifest) -> ImageResult:
        """The image's part of the receipt, once the registry has confirmed the tag."""
        counts = self.delivery.counts
        manifests = self.origin.manifests if isinstance(self.origin, Plan) else (root,)
        blobs = {blob.digest: blob.size for manifest in manifests for blob in manifest.blobs if not blob.is_foreign}
        seen_to = {need.expect.digest for need in self.needs} if isinstance(self.origin, Plan) else blobs.keys()
        return ImageResult(
            reference=self.reference,
            digest=root.digest,
            media_type=root.media_type,
            size_bytes=sum(manifest.size for manifest in manifests) + sum(blobs.values()),
            platforms=self.platforms,
            missing=tuple(str(digest) for digest in self.origin.missing) if isinstance(self.origin, Plan) else (),
            referrers=self.referrers,
            left_out=self.left_out,
            blobs_uploaded=counts.uploaded,
            blobs_existing=counts.existing + len(blobs.keys() - seen_to),
            blobs_mounted=counts.mounted,
            uploaded_bytes=counts.uploaded_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePushes:
    """What it takes to make targets of an archive's images."""

    archive: Archive
    registry: Registry
    deliveries: RepositoryUploaders
    compression: Compression
    kinds: dict[Member, Compression]
    """How a stream's members turned out to be compressed; not used for an indexed archive."""

    async def choose(self, reference: Reference | None) -> tuple[ImagePush, ...]:
        """The image that `reference` means, or with None all that the archive has names for."""
        images = await self.archive.images()
        if reference is not None:
            image = select_image(images, reference)
            target = await self._target(image, reference)
            return (_with_left_out(target, (*_others(image, images), *self.archive.left_out)),)
        named = _by_name(images)
        targets: list[ImagePush] = []
        blobs = 0
        for to, image in named.items():
            targets.append(await self._target(image, to))
            blobs += len(targets[-1].needs)
            if blobs > BUNDLE_BLOBS_MAX:
                raise ArchiveError(f"the images of the bundle have more than {BUNDLE_BLOBS_MAX:,} blobs in all")
        return (_with_left_out(targets[0], self.archive.left_out), *targets[1:])

    async def _target(self, image: ArchiveImage, reference: Reference) -> ImagePush:
        delivery = self.deliveries.to(reference)
        if isinstance(image, DockerImage) and image.as_oci is not None and self._keeps_plain:
            image = image.as_oci
        if isinstance(image, OciImage):
            return await self._oci(image, reference, delivery)
        return await self._docker(image, reference, delivery)

    @property
    def _keeps_plain(self) -> bool:
        """Do plain layers with a manifest stay as they are? In a pipe they have gone by before the manifest tells."""
        is_pipe = isinstance(self.archive, StreamedArchive) and not self.archive.rereadable
        return is_pipe or self.compression is Compression.NONE

    async def _oci(self, image: OciImage, reference: Reference, delivery: RepositoryUploader) -> ImagePush:
        """The image's graph, and those of what refers to it: signatures and SBOMs, pushed by digest."""
        plan = await plan_image(image.root, self.archive, self.registry, delivery)
        others: list[tuple[Referrer, Plan]] = []
        left_out: list[LeftOut] = []
        for referrer in image.referrers:
            other = await plan_or_lack(referrer.entry, self.archive, self.registry, delivery)
            if isinstance(other, Plan):
                others.append((referrer, other))
            elif other.incomplete:
                raise other
            else:
                left_out.append(LeftOut(digest=referrer.entry.digest, reason=str(other)))
        by_digest = [manifest for _, other in others for manifest in other.children]
        companions = {referrer.tag: other.root for referrer, other in others if referrer.tag}
        tagged = {manifest.digest for manifest in companions.values()}
        by_digest += [other.root for _, other in others if other.root.digest not in tagged]
        return ImagePush(
            reference=reference,
            delivery=delivery,
            needs=tuple(dict.fromkeys(need for part in (plan, *(other for _, other in others)) for need in part.needs)),
            origin=plan,
            platforms=plan.platforms,
            children=(*plan.children, *{manifest.digest: manifest for manifest in by_digest}.values()),
            companions=companions,
            referrers=len({other.root.digest for _, other in others}),
            left_out=tuple(dict.fromkeys(left_out)),
        )

    async def _docker(self, image: DockerImage, reference: Reference, delivery: RepositoryUploader) -> ImagePush:
        platform = image.config.platform
        return ImagePush(
            reference=reference,
            delivery=delivery,
            needs=await docker_needs(image, self.archive, self.compression, self.kinds),
            origin=image.config,
            platforms=(str(platform),) if platform is not None else (),
        )


def _with_left_out(target: ImagePush, more: Sequence[LeftOut]) -> ImagePush:
    return replace(target, left_out=(*target.left_out, *more))


def _others(chosen: ArchiveImage, images: Sequence[ArchiveImage]) -> list[LeftOut]:
    """The images of an archive that its file's name does not mean, and what speaks of them alone."""
    pushed = {referrer.entry.digest for referrer in chosen.referrers}
    left_out: dict[Digest, LeftOut] = {}
    for image in images:
        if image is chosen or image.digest in pushed:
            continue
        reason = "the file's name means another image of the archive"
        left_out[image.digest] = LeftOut(digest=image.digest, reason=reason, name=str(image.called))
        for referrer in image.referrers:
            if referrer.entry.digest not in pushed:
                reason = f"it speaks of {referrer.subject}, which the file's name does not mean"
                left_out[referrer.entry.digest] = LeftOut(digest=referrer.entry.digest, reason=reason)
    return list(left_out.values())


def config_need(config: ImageConfig) -> BlobSpec:
    """The need for a config whose bytes are at hand."""
    descriptor = config.descriptor
    expect = Expectation(digest=descriptor.digest, size=descriptor.size)
    return BlobSpec(member=None, expect=expect, media_type=descriptor.media_type)


def _by_name(images: Sequence[ArchiveImage]) -> dict[Reference, ArchiveImage]:
    """Where a bundle's images go. An image that went nowhere would be lost with its file, so that each needs a name."""
    found: dict[Reference, ArchiveImage] = {}
    for image in images:
        if not image.names:
            raise ArchiveError(
                f"a bundle's images go where the archive names them, and it has no name with a repository for {image}; "
                "name the file after the image instead"
            )
        for name in image.names:
            if name.reference in found:
                raise ArchiveError(f"the archive gives the name {name.reference} to several images")
            found[name.reference] = image
    return found
