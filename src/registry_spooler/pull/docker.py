"""The docker archive, in the layout of `crane pull`: what `docker load`, `podman load` and skopeo read.

The config is the member `sha256:<hex>`, the layers are `<hex>.tar.gz` as the registry holds them, and
`manifest.json` comes last.
https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, Final

import orjson

from registry_spooler import mediatype
from registry_spooler.digest import Digest
from registry_spooler.manifest import Descriptor, Manifest, load_object
from registry_spooler.pull.entry import Entry, once
from registry_spooler.pull.errors import NotAnImage
from registry_spooler.reference import Reference

_ENDINGS: Final = {"gzip": ".tar.gz", "zstd": ".tar.zst", "none": ".tar"}


def docker_archive(
    reference: Reference, manifest: Manifest, config: bytes, *, absent: AbstractSet[Digest] = frozenset()
) -> tuple[Entry, ...]:
    """The entries of an image's docker archive. `absent` are the foreign layers that the registry does not hold."""
    config_entry = Entry.of(str(Digest.of(config)), config)
    layers = [Entry.blob(layer_path(layer), layer) for layer in manifest.layers if layer.digest not in absent]
    item: dict[str, Any] = {
        "Config": config_entry.path,
        "RepoTags": [repository_tag(reference)],
        "Layers": [layer_path(layer) for layer in manifest.layers],
    }
    if sources := _layer_sources(manifest, config, absent):
        item["LayerSources"] = sources
    return once((config_entry, *layers, Entry.of("manifest.json", orjson.dumps([item]))))


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
    rootfs = load_object(config, where="image config").get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    pairs = zip(diff_ids if isinstance(diff_ids, list) else [], manifest.layers, strict=False)
    return {str(diff_id): layer.to_json() for diff_id, layer in pairs if layer.digest in absent}
