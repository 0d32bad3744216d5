"""An image of an OCI layout as one whose layers are compressed here, as those of a docker archive are.

Its config, and with that its image ID, stays as it is. Its manifest is made anew, so whatever speaks of the old one
(signatures, attestations) is left out. The layers that others have compressed cannot be made from a delta: no library
repeats, byte for byte, what Go's compressors write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from registry_spooler.aio import in_worker
from registry_spooler.archive.formats.image import DockerImage, DockerLayer, OciImage
from registry_spooler.archive.streaming import Archive
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.progress import LeftOut


@dataclass(frozen=True, slots=True)
class RepackedImage:
    """An image, the digest that it has in the archive, and what speaks of that one alone."""

    image: DockerImage
    digest: Digest
    left_out: tuple[LeftOut, ...]


async def repacked_image(image: OciImage, archive: Archive) -> RepackedImage:
    """Read the only image under a layout's entry; ArchiveError when there are several, or none that is complete."""
    found = [(child, manifest) async for child, manifest in _manifests(image.root, archive)]
    attestations = [child for child, _ in found if child.is_attestation]
    complete = [(child, manifest) for child, manifest in found if not child.is_attestation]
    if len(complete) != 1:
        platforms = ", ".join(str(child.platform or child.digest) for child, _ in complete)
        held = f"{len(complete)} ({platforms})" if complete else "none that is complete"
        raise ArchiveError(f"only a single image can be compressed anew, and the archive holds {held}")
    config, layers = await _parts(complete[0][1], archive)
    reason = "it speaks of the image with the layers as they were"
    entries = (*attestations, *(referrer.entry for referrer in image.referrers))
    return RepackedImage(
        DockerImage(config=config, layers=layers, called=image.called),
        image.root.digest,
        tuple(LeftOut(digest=entry.digest, reason=reason) for entry in entries),
    )


async def _manifests(root: Descriptor, archive: Archive) -> AsyncIterator[tuple[Descriptor, Manifest]]:
    """Yield the images at and below an entry whose layers the archive holds, and the attestations, each once."""
    waiting, seen = [root], {root.digest}
    while waiting:
        entry = waiting.pop(0)
        manifest = await archive.manifest(entry)
        if manifest is None:
            continue
        waiting += [child for child in manifest.manifests if child.digest not in seen]
        seen.update(child.digest for child in manifest.manifests)
        is_complete = all(layer.is_foreign or archive.find(layer.digest) for layer in manifest.layers)
        if is_complete and not manifest.is_index:
            yield entry, manifest


async def _parts(manifest: Manifest, archive: Archive) -> tuple[ImageConfig, tuple[DockerLayer, ...]]:
    described = manifest.image_config
    content = await archive.content(described.digest) if described is not None else None
    if described is None or content is None:
        raise ArchiveError("what is compressed anew has to be an image with its config", where=manifest.digest.short)
    config = await in_worker(ImageConfig.parse, content)
    if len(config.diff_ids) != len(manifest.layers):
        raise ArchiveError(
            f"it lists {len(config.diff_ids)} layers, its manifest {len(manifest.layers)}",
            where=f"image config {described.digest.short}",
        )
    layers = [
        DockerLayer(
            path=f"blobs/{layer.digest.algorithm}/{layer.digest.hex}",
            diff_id=diff_id,
            member=archive.find(layer.digest),
            source=layer,
        )
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    ]
    return config, tuple(layers)
