"""An OCI layout in a tar, the same bytes for the same layout.

https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from release.archives import add

_REFERENCE = "org.opencontainers.image.ref.name"
_CONTAINERD = "io.containerd.image.name"
"""What containerd calls the image; the other annotation is a tag only to some programs."""


def write(layout: Path, archive: Path, epoch: int) -> None:
    """Write the archive of a layout's images, each under its full name."""
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = [_named(image) for image in sorted(index["manifests"], key=_name)]
    content = {path.relative_to(layout).as_posix(): path for path in layout.rglob("*") if path.is_file()}
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "oci-layout", (layout / "oci-layout").read_bytes(), epoch)
        add(tar, "index.json", json.dumps(index, separators=(",", ":")).encode(), epoch)
        for name in sorted(content.keys() - {"oci-layout", "index.json"}):
            add(tar, name, content[name].read_bytes(), epoch)


def _name(image: dict[str, Any]) -> str:
    name: str = image["annotations"][_REFERENCE]
    return name


def _named(image: dict[str, Any]) -> dict[str, Any]:
    return image | {"annotations": {_REFERENCE: _name(image), _CONTAINERD: _name(image)}}
