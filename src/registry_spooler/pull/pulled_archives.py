"""What a pull writes: a docker archive, an OCI archive, or the file that the image was made from.

All sizes are in the manifests, so only the blobs' bytes are still to come, which pass through piece by piece.

In a docker archive, the config is the member `sha256:<hex>`, the layers are `<hex>.tar.gz` as the registry holds them,
and `manifest.json` comes last.
https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format

In an OCI archive, the metadata comes first, so that who reads it as a stream knows the blobs before they come. Pushed
again, it gives the same digest. https://github.com/opencontainers/image-spec/blob/main/image-layout.md

Referrers are listed after the image. Each entry notes its subject as containerd does, and what has a tag of
cosign's also notes its kind as `cosign save` does
(https://github.com/sigstore/cosign/blob/main/pkg/oci/layout/index.go).

An image config says what the layer decompresses to, and that is checked. An artifact's layer (ORAS, Helm) is the file
itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
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
)
from registry_spooler.oci.manifest import CONTAINERD_SUBJECT, Descriptor, Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.image_tree import AttachedManifest, ImageTree
from registry_spooler.pull.output import NotAnImage, NotOneFile, WrongContent

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class PulledFile:
    """A file of the archive that is written: its bytes, or the blob that they are. `size` is in bytes."""

    path: str
    size: int
    content: bytes | Digest

    @classmethod
    def of(cls, path: str, content: bytes) -> PulledFile:
        """Return a file whose bytes are in memory."""
        return cls(path, len(content), content)

    @classmethod
    def blob(cls, path: str, descriptor: Descriptor) -> PulledFile:
        """Return a file that the registry holds."""
        return cls(path, descriptor.size, descriptor.digest)


def once(files: Iterable[PulledFile]) -> tuple[PulledFile, ...]:
    """Return each path once, where it comes first: an image may name a layer twice."""
    found: dict[str, PulledFile] = {}
    for file in files:
        found.setdefault(file.path, file)
    return tuple(found.values())


_ENDINGS: Final = {"gzip": ".tar.gz", "zstd": ".tar.zst", "none": ".tar"}


def docker_archive(
    reference: Reference, manifest: Manifest, config: bytes, *, absent: AbstractSet[Digest] = frozenset()
) -> tuple[PulledFile, ...]:
    """Return the files of a docker archive. `absent` are the foreign layers that the registry does not hold."""
    config_file = PulledFile.of(str(Digest.of(config)), config)
    layers = [PulledFile.blob(layer_path(layer), layer) for layer in manifest.layers if layer.digest not in absent]
    item: dict[str, Any] = {
        "Config": config_file.path,
        "RepoTags": [repository_tag(reference)],
        "Layers": [layer_path(layer) for layer in manifest.layers],
    }
    if sources := _layer_sources(manifest, config, absent):
        item["LayerSources"] = sources
    return once((config_file, *layers, PulledFile.of("manifest.json", orjson.dumps([item]))))


def image_config(reference: Reference, manifest: Manifest) -> Descriptor:
    """Return the manifest's config; NotAnImage when no container engine could load what it describes."""
    if manifest.image_config is None:
        config_type = manifest.config.media_type if manifest.config is not None else ""
        raise NotAnImage(str(reference), manifest.artifact_type or config_type or manifest.media_type)
    return manifest.image_config


def repository_tag(reference: Reference) -> str:
    """Return the image's name once it is loaded: the reference without the registry's host.

    `docker load` needs a tag, so an image that was pulled by its digest gets the digest's first digits.
    """
    tag = reference.tag or (reference.digest.short if reference.digest is not None else "latest")
    return f"{reference.repository}:{tag}"


def layer_path(layer: Descriptor) -> str:
    """Return `<hex>.tar.gz`, or with the ending that fits the layer's own type."""
    return layer.digest.hex + _ENDINGS[mediatype.layer_compression(layer.media_type)]


def _layer_sources(manifest: Manifest, config: bytes, absent: AbstractSet[Digest]) -> dict[str, Any]:
    """Return the descriptors of the layers that are not in the archive, by diff ID."""
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
) -> tuple[PulledFile, ...]:
    """Return the files of an OCI archive. `absent` are the foreign layers that the registry does not hold."""
    trees = (tree, *(referrer.tree for referrer in referrers))
    manifests = [
        PulledFile.of(blob_path(digest), found.content) for one in trees for digest, found in one.manifests.items()
    ]
    blobs = [PulledFile.blob(blob_path(blob.digest), blob) for one in trees for blob in one.blobs]
    return once(
        (
            PulledFile.of(LAYOUT_PATH, LAYOUT),
            PulledFile.of(INDEX_PATH, _index(reference, tree.root.descriptor(), referrers)),
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


class Unpacking:
    """Takes an image's only layer piece by piece and writes what it decompresses to; `finish` checks the whole.

    `config` is the content of the image's config, None for an artifact. NotOneFile when there is not exactly one layer.
    """

    def __init__(self, reference: Reference, output: Writes, manifest: Manifest, config: bytes | None) -> None:
        if len(manifest.layers) != 1:
            raise NotOneFile(str(reference), len(manifest.layers))
        self.layer = manifest.layers[0]
        diff_ids = ImageConfig.parse(config).diff_ids if config is not None else ()
        self._diff_id = diff_ids[0] if len(diff_ids) == 1 else None
        self._reference = str(reference)
        self._output = output
        self._inflater: Inflater | None = None
        compression = Compression(mediatype.layer_compression(self.layer.media_type))
        if self._diff_id not in (None, self.layer.digest) and compression is not Compression.NONE:
            self._inflater = Inflater(compression, name=self._reference)
        self._hash = hashlib.new(self._diff_id.algorithm if self._diff_id is not None else "sha256")

    async def write(self, piece: Buffer) -> None:
        """Take the next piece of the layer as the registry holds it."""
        while True:
            plain = await in_thread(self._inflate, piece)
            if not plain:
                return
            await self._output.write(plain)
            piece = b""
            if self._inflater is None or self._inflater.needs_input:
                return

    def finish(self) -> None:
        """Check what was written; ArchiveError or WrongContent when it is not what was pushed."""
        if self._inflater is not None:
            self._inflater.finish()
        if self._diff_id is not None and self._hash.hexdigest() != self._diff_id.hex:
            raise WrongContent(self._reference, f"it does not unpack to {self._diff_id}")

    def _inflate(self, piece: Buffer) -> memoryview:
        plain = memoryview(piece if self._inflater is None else self._inflater.inflate(piece, PIECE_BYTES))
        self._hash.update(plain)
        return plain
