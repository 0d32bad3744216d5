"""The manifests that are made here, because the source has none: a docker archive's image, and a raw file's.

Both are OCI manifests (zot and others refuse Docker's types), and both are a pure function of their parts, so the
same input gives the same digest. An OCI archive's manifests never come through here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from registry_spooler import mediatype
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError
from registry_spooler.manifest import Descriptor, Manifest, load_object

TITLE: Final = "org.opencontainers.image.title"
"""The annotation by which ORAS, and `registry-client pull --unpack`, name a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What a push needs of an image config.

    https://github.com/opencontainers/image-spec/blob/main/config.md
    """

    content: bytes
    diff_ids: tuple[Digest, ...]

    @property
    def descriptor(self) -> Descriptor:
        """What points to the config."""
        return Descriptor(media_type=mediatype.OCI_CONFIG, digest=Digest.of(self.content), size=len(self.content))

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> ImageConfig:
        """Read an image config; ArchiveError when it lists no layers as an image config does."""
        return cls(content=content, diff_ids=read_diff_ids(load_object(content, where=where), where=where))


def read_diff_ids(config: dict[str, Any], *, where: str) -> tuple[Digest, ...]:
    """The digests of the uncompressed layers, in their order."""
    rootfs = config.get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if listed is None:
        listed = []
    if not isinstance(listed, list):
        raise ArchiveError("the image config's diff_ids are not a list", where=where)
    try:
        return tuple(Digest.parse(str(diff_id)) for diff_id in listed)
    except ValueError as exc:
        raise ArchiveError("the image config lists a diff ID that is no digest", where=where) from exc


def image_manifest(
    config: Descriptor, layers: tuple[Descriptor, ...], annotations: dict[str, str] | None = None
) -> Manifest:
    """The OCI manifest of a config and its layers."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = annotations
    return Manifest.parse(orjson.dumps(document))


def raw_config(diff_id: Digest) -> bytes:
    """The config of an image whose one layer is a raw file.

    The platform is only there because tools ask every image for one; nothing in the image runs.
    """
    return orjson.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
        }
    )


def raw_manifest(config: Descriptor, layer: Descriptor, file_name: str) -> Manifest:
    """The manifest of a raw file's image; the layer's title is what `oras pull` would call its bytes."""
    titled = Descriptor(
        media_type=layer.media_type,
        digest=layer.digest,
        size=layer.size,
        annotations={TITLE: f"{file_name}.gz"},
    )
    return image_manifest(config, (titled,), {TITLE: file_name})


def partial_index(index: Manifest, kept: dict[Digest, Descriptor]) -> Manifest:
    """`index` with only the children in `kept` left, by their digests; every other field as it was.

    A child that is itself a pruned index is given its new digest and size.
    """
    document = load_object(index.content, where="index")
    entries = []
    for entry, child in zip(document["manifests"], index.manifests, strict=True):
        if (now := kept.get(child.digest)) is not None:
            entries.append({**entry, "digest": str(now.digest), "size": now.size, "mediaType": now.media_type})
    return Manifest.parse(orjson.dumps({**document, "manifests": entries}), media_type=index.media_type)
