"""An image with all that hangs on it: the index, its images for each platform, their attestations.

What refers to the image from outside (signatures, and attestations attached by `subject`) is no part of it: it is not
named by the image's digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry_spooler.digest import Digest
from registry_spooler.errors import NotFound
from registry_spooler.manifest import Descriptor, Manifest
from registry_spooler.pull.errors import ImageTooLarge
from registry_spooler.reference import Reference

if TYPE_CHECKING:
    from registry_spooler.registry import RegistryClient

MANIFESTS_MAX: Final = 1_000
"""The largest indexes in use have some fifty images, each with an attestation."""
MANIFEST_BYTES_MAX: Final = 32 << 20
"""All manifests of one image together; they are held in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTree:
    """The manifests by the digests that name them, in the order in which they are found, the root first."""

    root: Manifest
    manifests: Mapping[Digest, Manifest]
    others: tuple[Descriptor, ...] = ()
    """What an index lists that is no manifest; it is taken as a blob."""
    missing: tuple[Descriptor, ...] = ()
    """Children of an index that the registry does not hold."""

    @property
    def blobs(self) -> Iterator[Descriptor]:
        """All configs, then all layers; a blob that is named twice comes twice."""
        yield from (manifest.config for manifest in self.manifests.values() if manifest.config is not None)
        yield from (layer for manifest in self.manifests.values() for layer in manifest.layers)
        yield from self.others


async def read_tree(client: RegistryClient, repository: str, root: Manifest) -> ImageTree:
    """Read all manifests below `root`; one request for each."""
    found = {root.digest: root}
    others: list[Descriptor] = []
    missing: list[Descriptor] = []
    waiting = list(root.manifests)
    size_bytes = root.size
    while waiting:
        child = waiting.pop(0)
        if child.digest in found:
            continue
        if not (child.is_index or child.is_manifest):
            others.append(child)
            continue
        try:
            manifest = await client.get_manifest(Reference(repository, None, child.digest))
        except NotFound:
            missing.append(child)
            continue
        found[child.digest] = manifest
        size_bytes += manifest.size
        waiting.extend(manifest.manifests)
        _check_size(repository, len(found) + len(waiting), size_bytes)
    return ImageTree(root=root, manifests=found, others=tuple(others), missing=tuple(missing))


def _check_size(repository: str, manifests: int, size_bytes: int) -> None:
    if manifests > MANIFESTS_MAX:
        raise ImageTooLarge(repository, f"it has more than {MANIFESTS_MAX} manifests")
    if size_bytes > MANIFEST_BYTES_MAX:
        raise ImageTooLarge(repository, f"its manifests have more than {MANIFEST_BYTES_MAX >> 20} MiB")
