"""The manifest of krew, kubectl's plug-in manager, and the archive that it downloads.

https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from release import tools
from release.archives import write_tgz
from release.checksums import sha256
from release.project import ROOT, Project, ReleaseError

_MACHINES = (("linux", "amd64"), ("linux", "arm64"), ("darwin", "amd64"), ("darwin", "arm64"))
_DESCRIPTION = (
    "Pushes image archives (of docker, podman, skopeo, buildah and others) into a registry that only the cluster can "
    "reach, through the API server, sending only what the registry lacks; lists, pulls and deletes there; and shows "
    "what Registry Spooler, which runs beside the registry, is doing."
)
_CAVEATS = """\
Needs Python 3.11 or later on the PATH, and Registry Spooler in the cluster:
  kubectl spool install --help
"""


def build(project: Project, program: Path, address: str) -> Path:
    """Write archive and manifest; `address` is the URL that the release's files will be at. Returns the manifest."""
    archive = project.dist / f"kubectl-spool-{project.version}.tar.gz"
    write_tgz(archive, {"kubectl-spool": program, "LICENSE": ROOT / "LICENSE"}, project.epoch)
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


def try_install(project: Project, manifest: Path) -> bool:
    """Have krew install it for this machine; False if there is no krew and no Go that builds it."""
    program = tools.find("krew")
    if program is None:
        return False
    archive = manifest.with_name(f"kubectl-spool-{project.version}.tar.gz")
    with tempfile.TemporaryDirectory() as root:
        project.run(program, "install", f"--manifest={manifest}", f"--archive={archive}", KREW_ROOT=root)
        printed = project.run(Path(root, "bin", "kubectl-spool"), "--version")
    if project.version not in printed:
        raise ReleaseError(f"what krew installs says {printed!r}")
    return True
