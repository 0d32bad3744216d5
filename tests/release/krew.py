"""The manifest of krew, kubectl's plug-in manager, and the archive that it downloads.

https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import yaml

from release.checksums import sha256
from release.project import ROOT, Project

_MACHINES = (("linux", "amd64"), ("linux", "arm64"), ("darwin", "amd64"), ("darwin", "arm64"))
_DESCRIPTION = """\
Pushes image archives (of docker, podman, skopeo, buildah and others) into a registry that only the
cluster can reach, through the API server, sending only what the registry lacks; lists, pulls and
deletes there; and shows what Registry Spooler, which runs beside the registry, is doing.
"""
_CAVEATS = """\
Needs Python 3.11 or later on the PATH, and Registry Spooler in the cluster:
  kubectl spool install --help
"""


def build(project: Project, program: Path, address: str) -> Path:
    """Write archive and manifest; `address` is the URL that the release's files will be at. Returns the manifest."""
    archive = project.dist / f"kubectl-spool-{project.version}.tar.gz"
    _pack(archive, {"kubectl-spool": program, "LICENSE": ROOT / "LICENSE"}, project.epoch)
    manifest = project.dist / "spool.yaml"
    manifest.write_text(yaml.safe_dump(_manifest(project.version, archive, address), sort_keys=False))
    return manifest


def _manifest(version: str, archive: Path, address: str) -> dict[str, object]:
    return {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "spool"},
        "spec": {
            "version": f"v{version}",
            "homepage": address,
            "shortDescription": "Push images to a registry inside the cluster",
            "description": _DESCRIPTION,
            "caveats": _CAVEATS,
            "platforms": [
                {
                    "selector": {"matchLabels": {"os": system, "arch": machine}},
                    "uri": f"{address}/{archive.name}",
                    "sha256": sha256(archive),
                    "bin": "kubectl-spool",
                    "files": [{"from": "kubectl-spool", "to": "."}, {"from": "LICENSE", "to": "."}],
                }
                for system, machine in _MACHINES
            ],
        },
    }


def _pack(output: Path, files: dict[str, Path], epoch: int) -> None:
    """Write a .tar.gz that is the same each time."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), epoch, path.stat().st_mode & 0o755
            tar.addfile(entry, io.BytesIO(content))
