"""An image that is pushed to a tag: the blobs it consists of, and the manifest that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.formats.image import ArchiveImage, DockerImage, OciImage, Referrer, select_image
from registry_spooler.archive.streaming import Archive, StreamedArchive
from registry_spooler.archive.tar_header import Member
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, LeftOut
from registry_spooler.push.blob_spec import BlobSpec, Registry, docker_specs
from registry_spooler.push.plan import DockerPlan, Plan, plan_image, plan_or_lack
from registry_spooler.push.repack import repacked_image
from registry_spooler.push.uploader import RepositoryUploader

BUNDLE_BLOBS_MAX: Final = 100_000
"""Blobs of all images of a bundle, shared ones counted for each of their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePush:
    """An image and its tag."""

    reference: Reference
    uploader: RepositoryUploader
    plan: Plan | DockerPlan
    specs: tuple[BlobSpec, ...] = ()
    """The blobs of the image and of its referrers, each once, without foreign layers."""
    children: tuple[Manifest, ...] = ()
    """Pushed by digest before the manifest that is tagged."""
    companions: dict[str, Manifest] = field(default_factory=dict)
    """Referrers that have a tag of their own, by that tag."""
    referrers: int = 0
    """How many manifests refer to the image."""
    left_out: tuple[LeftOut, ...] = ()
    repacked_from: Digest | None = None
    """The image's digest in the archive, if its layers are compressed anew."""

    def result(self, plan: Plan) -> ImageResult:
        """Return the image's part of the receipt; `plan` is the complete one."""
        blobs = {
            blob.digest: blob.size for manifest in plan.manifests for blob in manifest.blobs if not blob.is_foreign
        }
        counts = self.uploader.counts
        # What only the registry's own manifests name has not been asked for.
        asked = {spec.expect.digest or blob.digest for spec, blob in self.uploader.delivered.items()}
        return ImageResult(
            reference=self.reference,
            digest=plan.root.digest,
            media_type=plan.root.media_type,
            size_bytes=sum(manifest.size for manifest in plan.manifests) + sum(blobs.values()),
            platforms=plan.platforms,
            missing=tuple(str(digest) for digest in plan.missing),
            referrers=self.referrers,
            left_out=self.left_out,
            repacked_from=self.repacked_from,
            counts=replace(counts, blobs_existing=counts.blobs_existing + len(blobs.keys() - asked)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePushes:
    """Makes pushes of an archive's images."""

    archive: Archive
    registry: Registry
    uploader_for: Callable[[Reference], RepositoryUploader]
    compression: Compression
    repack: bool
    kinds: dict[Member, Compression]
    """How a stream's members are compressed; not used for an indexed archive."""

    async def choose(self, reference: Reference | None) -> tuple[ImagePush, ...]:
        """Return the image that `reference` means, or with None all that the archive has names for."""
        images = await self.archive.images()
        if reference is not None:
            image = select_image(images, reference)
            push = await self._push(image, reference)
            return (replace(push, left_out=(*push.left_out, *_others(image, images), *self.archive.left_out)),)
        pushes: list[ImagePush] = []
        blobs = 0
        for to, image in _by_name(images).items():
            pushes.append(await self._push(image, to))
            blobs += len(pushes[-1].specs)
            if blobs > BUNDLE_BLOBS_MAX:
                raise ArchiveError(f"the images of the bundle have more than {BUNDLE_BLOBS_MAX:,} blobs in all")
        return (replace(pushes[0], left_out=(*pushes[0].left_out, *self.archive.left_out)), *pushes[1:])

    async def _push(self, image: ArchiveImage, reference: Reference) -> ImagePush:
        uploader = self.uploader_for(reference)
        if isinstance(image, DockerImage) and image.as_oci is not None and self._keeps_plain:
            image = image.as_oci
        repacked = await repacked_image(image, self.archive) if self.repack and isinstance(image, OciImage) else None
        if repacked is not None:
            image = repacked.image
        if isinstance(image, OciImage):
            return await self._oci(image, reference, uploader)
        layers = await docker_specs(image, self.archive, self.compression, self.kinds, repack=self.repack)
        push = ImagePush(
            reference=reference,
            uploader=uploader,
            plan=DockerPlan(image.config, layers),
            specs=_to_deliver(layers),
        )
        if repacked is None:
            return push
        return replace(push, repacked_from=repacked.digest, left_out=repacked.left_out)

    @property
    def _keeps_plain(self) -> bool:
        # In a pipe, the layers have gone by before the manifest tells.
        is_pipe = isinstance(self.archive, StreamedArchive) and not self.archive.rereadable
        return is_pipe or self.compression is Compression.NONE

    async def _oci(self, image: OciImage, reference: Reference, uploader: RepositoryUploader) -> ImagePush:
        """Plan the image's graph, and those of what refers to it: signatures and SBOMs, pushed by digest."""
        plan = await plan_image(image.root, self.archive, self.registry, uploader)
        others: list[tuple[Referrer, Plan]] = []
        left_out: list[LeftOut] = []
        for referrer in image.referrers:
            other = await plan_or_lack(referrer.entry, self.archive, self.registry, uploader)
            if isinstance(other, Plan):
                others.append((referrer, other))
            elif other.incomplete:
                raise other
            else:
                left_out.append(LeftOut(digest=referrer.entry.digest, reason=str(other)))
        companions = {referrer.tag: other.root for referrer, other in others if referrer.tag}
        tagged = {manifest.digest for manifest in companions.values()}
        by_digest = [manifest for _, other in others for manifest in other.children]
        by_digest += [other.root for _, other in others if other.root.digest not in tagged]
        return ImagePush(
            reference=reference,
            uploader=uploader,
            plan=plan,
            specs=_to_deliver([spec for part in (plan, *(other for _, other in others)) for spec in part.specs]),
            children=(*plan.children, *{manifest.digest: manifest for manifest in by_digest}.values()),
            companions=companions,
            referrers=len({other.root.digest for _, other in others}),
            left_out=tuple(dict.fromkeys(left_out)),
        )


def _to_deliver(specs: Sequence[BlobSpec]) -> tuple[BlobSpec, ...]:
    return tuple(dict.fromkeys(spec for spec in specs if spec.foreign is None))


def _others(chosen: ArchiveImage, images: Sequence[ArchiveImage]) -> list[LeftOut]:
    """Return the images of an archive that its file's name does not mean, and their own referrers."""
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


def _by_name(images: Sequence[ArchiveImage]) -> dict[Reference, ArchiveImage]:
    """Return where a bundle's images go. One that went nowhere would be lost with its file, so each needs a name."""
    found: dict[Reference, ArchiveImage] = {}
    for image in images:
        if not image.called.names:
            raise ArchiveError(
                f"a bundle's images go where the archive names them, and it has no name with a repository for {image}; "
                "name the file after the image instead"
            )
        for name in image.called.names:
            if name.reference in found:
                raise ArchiveError(f"the archive gives the name {name.reference} to several images")
            found[name.reference] = image
    return found
