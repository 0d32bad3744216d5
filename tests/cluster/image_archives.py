"""Archives to push, and what is in those that come back."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

from support.images.archive_parts import Image, make_tar
from support.images.archives import podman_docker

GZIP = b"\x1f\x8b"


def write_archive(path: Path, *, layers: int = 1, size_bytes: int = 4096) -> Path:
    """Write an image that nobody has pushed, of layers with `size_bytes` in all that cannot be compressed."""
    contents = tuple(make_tar([(f"file{at}", os.urandom(size_bytes // layers))]) for at in range(layers))
    path.write_bytes(podman_docker(Image(layers=contents)))
    return path


def diff_ids(path: Path) -> list[str]:
    """The digests of the layers of a docker archive, unpacked."""
    with tarfile.open(path) as archive:
        (image,) = json.loads(_content(archive, "manifest.json"))
        contents = (_content(archive, name) for name in image["Layers"])
        return [hashlib.sha256(gzip.decompress(c) if c.startswith(GZIP) else c).hexdigest() for c in contents]


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    assert found is not None
    return found.read()
