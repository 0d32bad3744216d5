"""The media types that images are made of.

https://github.com/opencontainers/image-spec/blob/main/media-types.md and
https://distribution.github.io/distribution/spec/manifest-v2-2/#media-types
"""

from __future__ import annotations

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD: Final = OCI_LAYER + "+zstd"
RAW_GZIP: Final = "application/gzip"
"""The one layer of a raw file's image. It does not claim to be a tar: unpacked, it is the file itself."""
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
IMAGE_CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
PLAIN_LAYERS: Final = frozenset({OCI_LAYER, DOCKER_LAYER})

MANIFEST_ACCEPT: Final = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
"""For `Accept`: distribution answers 404 for an OCI manifest when its type is not listed."""


def is_foreign(media_type: str) -> bool:
    """Is it a layer that registries need not hold (Windows base layers)?"""
    return ".foreign." in media_type or ".nondistributable." in media_type


def is_image_layer(media_type: str) -> bool:
    """Is it a layer whose bytes are a tar, compressed or not, so that it has a diff ID? Encrypted ones are not."""
    if not media_type.startswith(("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")):
        return False
    return media_type.endswith((".tar", ".tar+gzip", ".tar+zstd", ".tar.gzip"))


def layer_compression(media_type: str) -> str:
    """How a layer of this type is compressed: `gzip`, `zstd`, or `none`, by the words of `--compression`."""
    if media_type.endswith("+zstd"):
        return "zstd"
    return "gzip" if media_type.endswith(("+gzip", ".gzip")) or media_type == RAW_GZIP else "none"
