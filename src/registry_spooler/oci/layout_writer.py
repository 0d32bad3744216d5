"""Writing an OCI layout as a tar: its documents, the paths of its blobs, and the tar's own bytes.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md

Headers are in the GNU format: sizes from 8 GiB on are base-256 numbers, which every reader knows, small ones in
containers included. Everything in them but path and size is constant, so that archives are reproducible.
https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import Any, Final

import orjson

from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import IMAGE_NAME, REFERENCE_NAME, Descriptor

LAYOUT_PATH: Final = "oci-layout"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
INDEX_PATH: Final = "index.json"

TAR_END: Final = bytes(2 * tarfile.BLOCKSIZE)
"""The end marker. An archive without it was not finished."""


def blob_path(digest: Digest) -> str:
    """Return where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def image_entry(descriptor: Descriptor, annotations: dict[str, str]) -> dict[str, Any]:
    """Return what an index lists for a manifest."""
    return descriptor.to_json() | ({"annotations": annotations} if annotations else {})


def name_annotations(name: str) -> dict[str, str]:
    """Return how a layout calls an image: by its full name, and by its tag alone."""
    return {IMAGE_NAME: name, REFERENCE_NAME: name.rpartition(":")[2]}


def index_document(entries: Iterable[dict[str, Any]]) -> bytes:
    """Return the bytes of an index.json."""
    return orjson.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": list(entries)})


def tar_header(path: str, size: int) -> bytes:
    """Return the header of a regular file; `size` is in bytes."""
    member = tarfile.TarInfo(path)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def tar_padding(size: int) -> bytes:
    """Return what follows a content of `size` bytes up to the next block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def tar_size(members: Iterable[tuple[str, int]]) -> int:
    """Return the size in bytes of a whole tar, from the paths and sizes of its files."""
    return len(TAR_END) + sum(len(tar_header(path, size)) + size + len(tar_padding(size)) for path, size in members)
