"""Tar archives that are the same bytes for the same content, whoever makes them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_EXECUTABLE = 0o755
_PLAIN = 0o644
_REFERENCE = "org.opencontainers.image.ref.name"
_CONTAINERD = "io.containerd.image.name"
"""What containerd calls the image; the other annotation is a tag only to some programs."""


def write_tgz(output: Path, files: Mapping[str, Path], epoch: int) -> None:
    """Write a .tar.gz of files under these names, all of one time (seconds) and of nobody."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path in sorted(files.items()):
            executable = path.stat().st_mode & 0o100
            _add(tar, name, path.read_bytes(), epoch, _EXECUTABLE if executable else _PLAIN)


def write_layout(layout: Path, archive: Path, epoch: int) -> None:
    """Write the archive of an OCI layout's images, each under its full name.

    https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
    """
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = [_named(image) for image in sorted(index["manifests"], key=_name)]
    content = {path.relative_to(layout).as_posix(): path for path in layout.rglob("*") if path.is_file()}
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "oci-layout", (layout / "oci-layout").read_bytes(), epoch)
        _add(tar, "index.json", json.dumps(index, separators=(",", ":")).encode(), epoch)
        for name in sorted(content.keys() - {"oci-layout", "index.json"}):
            _add(tar, name, content[name].read_bytes(), epoch)


def _name(image: dict[str, Any]) -> str:
    name: str = image["annotations"][_REFERENCE]
    return name


def _named(image: dict[str, Any]) -> dict[str, Any]:
    return image | {"annotations": {_REFERENCE: _name(image), _CONTAINERD: _name(image)}}


def _add(tar: tarfile.TarFile, name: str, content: bytes, epoch: int, mode: int = _PLAIN) -> None:
    """Add one file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), epoch, mode
    tar.addfile(entry, io.BytesIO(content))
