"""The Helm chart as an archive: what `helm package` writes, but the same bytes each time."""

from __future__ import annotations

from pathlib import Path

from release import tools
from release.archives import write_tgz
from release.project import ROOT, Project

CHART = ROOT / "manifests" / "chart"


def build(project: Project) -> Path:
    """Pack the chart; returns the archive."""
    output = project.dist / f"registry-spooler-chart-{project.version}.tgz"
    files = (path for path in CHART.rglob("*") if path.is_file() and not path.name.startswith("."))
    # Helm wants everything in one folder of the chart's name.
    write_tgz(output, {f"registry-spooler/{path.relative_to(CHART).as_posix()}": path for path in files}, project.epoch)
    return output


def check(project: Project, archive: Path) -> bool:
    """Have helm read it and make the manifests; False if there is no helm and no Go that builds it."""
    helm = tools.find("helm")
    if helm is None:
        return False
    project.run(helm, "lint", "--strict", archive)
    project.run(helm, "template", "spooler", archive, "--namespace=registry", "--kube-version=1.34.0")
    return True
