"""Images for the nodes: archives are imported into containerd, where the kubelet looks for them."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

from localcluster.namespaces import Namespaces
from localcluster.worker import PAUSE

PAUSE_PROGRAM = Path("/usr/bin/catatonit")
"""Debian's own small init. It is linked statically, and does nothing but collect processes when it is told so by -P."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CTR = ("ctr", "--namespace", "k8s.io")


def load(node: Namespaces, archive: Path) -> None:
    """Import a docker or OCI archive under the names that it has."""
    with archive.open("rb") as content:
        subprocess.run([*node.enter(), *CTR, "images", "import", "-"], stdin=content, check=True, capture_output=True)


def write_pause(archive: Path) -> None:
    """Write the image that holds a pod's namespaces, as a docker archive."""
    layer = _tar({"pause": PAUSE_PROGRAM.read_bytes()})
    config = {
        "os": "linux",
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "config": {"Entrypoint": ["/pause", "-P"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    index = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(index).encode(),
    }
    archive.write_bytes(_tar(files))


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()
