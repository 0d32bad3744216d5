"""What a pull writes: a docker archive, an OCI archive, or the file that the image was made from.

All sizes are in the manifests, so the whole archive is known by then but for the blobs' bytes, which
pass through piece by piece.

The config is the member `sha256:<hex>`, the layers are `<hex>.tar.gz` as the registry holds them, and
`manifest.json` comes last.
https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format

The metadata comes first, so that whoever reads it as a stream knows what the blobs are before they come. Pushed
again it gives the same digest. https://github.com/opencontainers/image-spec/blob/main/image-layout.md

What speaks of the image is listed behind it. Each entry notes its subject as containerd does, and what has a tag of
cosign's also its kind as `cosign save` does
(https://github.com/sigstore/cosign/blob/main/pkg/oci/layout/index.go).

An image config says what the layer decompresses to, and that is checked. An artifact's layer (ORAS, Helm) is the file
itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from registry_spooler.aio import in_thread
from registry_spooler.archive.compression import Compression, Inflater
from registry_spooler.oci import mediatype
from registry_spooler.oci.blob import PIECE_BYTES
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
    tar_size,
)
from registry_spooler.oci.manifest import CONTAINERD_SUBJECT, Descriptor, Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.image_tree import AttachedManifest, ImageTree
from registry_spooler.pull.output import NotAnImage, NotOneFile, WrongContent

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A regular file in an archive: its bytes, or the blob that they are. `size` is in bytes."""

    path: str
    size: int
    content: bytes | Digest

    @classmethod
    def of(cls, path: str, content: bytes) -> ArchiveEntry:
        """An entry whose bytes are at hand."""
        return cls(path, len(content), content)

    @classmethod
    def blob(cls, path: str, descriptor: Descriptor) -> ArchiveEntry:
        """An entry that the registry holds."""
        return cls(path, descriptor.size, descriptor.digest)


def archive_bytes(entries: Iterable[ArchiveEntry]) -> int:
    """The size of the whole archive."""
    return tar_size((entry.path, entry.size) for entry in entries)


def once(entries: Iterable[ArchiveEntry]) -> tuple[ArchiveEntry, ...]:
    """Each path once, where it comes first: layers that an image names twice are written once."""
    found: dict[str, ArchiveEntry] = {}
    for entry in entries:
        found.setdefault(entry.path, entry)
    return tuple(found.values())


_ENDINGS: Final = {"gzip": ".tar.gz", "zstd": ".tar.zst", "none": ".tar"}


def docker_archive(
    reference: Reference, manifest: Manifest, config: bytes, *, absent: AbstractSet[Digest] = frozenset()
) -> tuple[ArchiveEntry, ...]:
    """The entries of an image's docker archive. `absent` are the foreign layers that the registry does not hold."""
    config_entry = ArchiveEntry.of(str(Digest.of(config)), config)
    layers = [ArchiveEntry.blob(layer_path(layer), layer) for layer in manifest.layers if layer.digest not in absent]
    item: dict[str, Any] = {
        "Config": config_entry.path,
        "RepoTags": [repository_tag(reference)],
        "Layers": [layer_path(layer) for layer in manifest.layers],
    }
    if sources := _layer_sources(manifest, config, absent):
        item["LayerSources"] = sources
    return once((config_entry, *layers, ArchiveEntry.of("manifest.json", orjson.dumps([item]))))


def image_config(reference: Reference, manifest: Manifest) -> Descriptor:
    """The manifest's config; NotAnImage when no container engine could load what it describes."""
    config = manifest.config
    if config is None or config.media_type not in mediatype.IMAGE_CONFIGS:
        config_type = config.media_type if config is not None else ""
        raise NotAnImage(str(reference), manifest.artifact_type or config_type or manifest.media_type)
    return config


def repository_tag(reference: Reference) -> str:
    """What the image is called once it is loaded: what was asked for, without a registry's host.

    `docker load` needs a tag, so an image that was asked for by its digest gets the digest's first digits.
    """
    tag = reference.tag or (reference.digest.short if reference.digest is not None else "latest")
    return f"{reference.repository}:{tag}"


def layer_path(layer: Descriptor) -> str:
    """`<hex>.tar.gz`, or the ending that fits the layer's own type."""
    return layer.digest.hex + _ENDINGS[mediatype.layer_compression(layer.media_type)]


def _layer_sources(manifest: Manifest, config: bytes, absent: AbstractSet[Digest]) -> dict[str, Any]:
    """Where to find the layers that are not in the archive, by diff ID."""
    if not absent:
        return {}
    pairs = zip(ImageConfig.parse(config).diff_ids, manifest.layers, strict=False)
    return {str(diff_id): layer.to_json() for diff_id, layer in pairs if layer.digest in absent}


_KIND: Final = "kind"
_KIND_PREFIX: Final = "dev.cosignproject.cosign/"


def oci_archive(
    reference: Reference,
    tree: ImageTree,
    referrers: Sequence[AttachedManifest] = (),
    *,
    absent: AbstractSet[Digest] = frozenset(),
) -> tuple[ArchiveEntry, ...]:
    """The entries of an image's OCI archive. `absent` are the foreign layers that the registry does not hold."""
    trees = (tree, *(referrer.tree for referrer in referrers))
    manifests = [
        ArchiveEntry.of(blob_path(digest), found.content) for one in trees for digest, found in one.manifests.items()
    ]
    blobs = [ArchiveEntry.blob(blob_path(blob.digest), blob) for one in trees for blob in one.blobs]
    return once(
        (
            ArchiveEntry.of(LAYOUT_PATH, LAYOUT),
            ArchiveEntry.of(INDEX_PATH, _index(reference, tree.root.descriptor(), referrers)),
            *manifests,
            *(blob for blob in blobs if blob.content not in absent),
        )
    )


def _index(reference: Reference, root: Descriptor, referrers: Sequence[AttachedManifest]) -> bytes:
    annotations = name_annotations(repository_tag(reference))
    if any(referrer.suffix for referrer in referrers):
        annotations[_KIND] = _KIND_PREFIX + ("imageIndex" if root.is_index else "image")
    return index_document([image_entry(root, annotations), *map(_entry, referrers)])


def _entry(referrer: AttachedManifest) -> dict[str, Any]:
    annotations = {CONTAINERD_SUBJECT: str(referrer.subject)}
    if referrer.suffix:
        annotations[_KIND] = f"{_KIND_PREFIX}{referrer.suffix[1:]}s"
    return image_entry(referrer.tree.root.descriptor(), annotations)


class Writes(Protocol):
    """What an unpacked file is written to."""

    async def write(self, piece: Buffer) -> None:
        """Write all of a piece."""


def only_layer(reference: Reference, manifest: Manifest) -> Descriptor:
    """The one layer; NotOneFile when there are more, or none."""
    if len(manifest.layers) != 1:
        raise NotOneFile(str(reference), len(manifest.layers))
    return manifest.layers[0]


def only_diff_id(config: bytes) -> Digest | None:
    """What the one layer decompresses to, if the image config says it."""
    diff_ids = ImageConfig.parse(config).diff_ids
    return diff_ids[0] if len(diff_ids) == 1 else None


@dataclass(slots=True)
class Unpacking:
    """Takes a layer's bytes piece by piece and writes what they decompress to; `finish` checks the whole."""

    reference: Reference
    output: Writes
    compression: Compression
    diff_id: Digest | None
    _inflater: Inflater | None = field(init=False)
    _hash: Any = field(init=False)

    def __post_init__(self) -> None:
        is_plain = self.compression is Compression.NONE
        self._inflater = None if is_plain else Inflater(self.compression, name=str(self.reference))
        self._hash = hashlib.new(self.diff_id.algorithm if self.diff_id is not None else "sha256")

    async def write(self, piece: Buffer) -> None:
        """Take the next piece of the layer as the registry holds it."""
        while True:
            plain = await in_thread(self._inflate, piece)
            if not plain:
                return
            await self.output.write(plain)
            piece = b""
            if self._inflater is None or self._inflater.needs_input:
                return

    def finish(self) -> None:
        """Check what was written; ArchiveError or WrongContent when it is not what was pushed."""
        if self._inflater is not None:
            self._inflater.finish()
        if self.diff_id is not None and self._hash.hexdigest() != self.diff_id.hex:
            raise WrongContent(str(self.reference), f"it does not unpack to {self.diff_id}")

    def _inflate(self, piece: Buffer) -> memoryview:
        plain = memoryview(piece if self._inflater is None else self._inflater.inflate(piece, PIECE_BYTES))
        self._hash.update(plain)
        return plain


def compression_of(layer: Descriptor, diff_id: Digest | None) -> Compression:
    """How the layer's bytes are to be undone: not at all in an artifact, or where the diff ID is their own digest."""
    if diff_id is None or diff_id == layer.digest:
        return Compression.NONE
    return Compression(mediatype.layer_compression(layer.media_type))
