"""The OCI archive: an image layout in a tar, with every manifest's bytes as the registry gave them.

The metadata comes first, so that whoever reads it as a stream knows what the blobs are before they come. Pushed
again it gives the same digest. https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, Final

import orjson

from registry_spooler.digest import Digest
from registry_spooler.manifest import Descriptor
from registry_spooler.pull.docker import repository_tag
from registry_spooler.pull.entry import Entry, once
from registry_spooler.pull.tree import ImageTree
from registry_spooler.reference import Reference

REFERENCE_NAME: Final = "org.opencontainers.image.ref.name"
IMAGE_NAME: Final = "io.containerd.image.name"
"""The full name, by which podman, nerdctl and docker call the image that they load."""


def oci_archive(
    reference: Reference, tree: ImageTree, *, absent: AbstractSet[Digest] = frozenset()
) -> tuple[Entry, ...]:
    """The entries of an image's OCI archive. `absent` are the foreign layers that the registry does not hold."""
    manifests = [Entry.of(blob_path(digest), manifest.content) for digest, manifest in tree.manifests.items()]
    blobs = [Entry.blob(blob_path(blob.digest), blob) for blob in tree.blobs if blob.digest not in absent]
    return once(
        (
            Entry.of("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            Entry.of("index.json", _index(reference, tree.root.descriptor())),
            *manifests,
            *blobs,
        )
    )


def blob_path(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _index(reference: Reference, root: Descriptor) -> bytes:
    name = repository_tag(reference)
    annotations = {IMAGE_NAME: name, REFERENCE_NAME: name.rpartition(":")[2]}
    entry: dict[str, Any] = {**root.to_json(), "annotations": annotations}
    return orjson.dumps({"schemaVersion": 2, "manifests": [entry]})
