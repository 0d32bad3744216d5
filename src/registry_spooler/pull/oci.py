"""The OCI archive: an image layout in a tar, with every manifest's bytes as the registry gave them.

The metadata comes first, so that whoever reads it as a stream knows what the blobs are before they come. Pushed
again it gives the same digest. https://github.com/opencontainers/image-spec/blob/main/image-layout.md

What speaks of the image is listed behind it. Each entry notes its subject as containerd does, and what has a tag of
cosign's also its kind as `cosign save` does
(https://github.com/sigstore/cosign/blob/main/pkg/oci/layout/index.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import orjson

from registry_spooler.digest import Digest
from registry_spooler.manifest import CONTAINERD_SUBJECT, Descriptor
from registry_spooler.pull.docker import repository_tag
from registry_spooler.pull.entry import Entry, once
from registry_spooler.pull.referrers import Referrer
from registry_spooler.pull.tree import ImageTree
from registry_spooler.reference import Reference

REFERENCE_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_NAME: Final = "io.containerd.image.name"
"""The full name, by which podman, nerdctl and docker call the image that they load."""

_KIND: Final = "kind"
_KIND_PREFIX: Final = "dev.cosignproject.cosign/"


def oci_archive(
    reference: Reference,
    tree: ImageTree,
    referrers: Sequence[Referrer] = (),
    *,
    absent: AbstractSet[Digest] = frozenset(),
) -> tuple[Entry, ...]:
    """The entries of an image's OCI archive. `absent` are the foreign layers that the registry does not hold."""
    trees = (tree, *(referrer.tree for referrer in referrers))
    manifests = [Entry.of(blob_path(digest), found.content) for one in trees for digest, found in one.manifests.items()]
    blobs = [Entry.blob(blob_path(blob.digest), blob) for one in trees for blob in one.blobs]
    return once(
        (
            Entry.of("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            Entry.of("index.json", _index(reference, tree.root.descriptor(), referrers)),
            *manifests,
            *(blob for blob in blobs if blob.content not in absent),
        )
    )


def blob_path(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _index(reference: Reference, root: Descriptor, referrers: Sequence[Referrer]) -> bytes:
    name = repository_tag(reference)
    annotations = {IMAGE_NAME: name, REFERENCE_NAME: name.rpartition(":")[2]}
    if any(referrer.suffix for referrer in referrers):
        annotations[_KIND] = _KIND_PREFIX + ("imageIndex" if root.is_index else "image")
    entries = [root.to_json() | {"annotations": annotations}, *map(_entry, referrers)]
    return orjson.dumps({"schemaVersion": 2, "manifests": entries})


def _entry(referrer: Referrer) -> dict[str, Any]:
    annotations = {CONTAINERD_SUBJECT: str(referrer.subject)}
    if referrer.suffix:
        annotations[_KIND] = f"{_KIND_PREFIX}{referrer.suffix[1:]}s"
    return referrer.tree.root.descriptor().to_json() | {"annotations": annotations}
