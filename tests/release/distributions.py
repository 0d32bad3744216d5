"""Wheel and source distribution: built without the network, installed and started."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from release.project import ROOT, Project, ReleaseError


def build(project: Project) -> tuple[Path, Path]:
    """Make both in the project's `dist`; returns the wheel and the source distribution."""
    project.run(sys.executable, "-m", "build", "--no-isolation", "--outdir", project.dist, ROOT)
    stem = f"registry_spooler-{project.version}"
    return project.dist / f"{stem}-py3-none-any.whl", project.dist / f"{stem}.tar.gz"


def try_programs(project: Project, wheel: Path) -> None:
    """Install the wheel with its dependencies into an empty environment, and ask every program for its version.

    The source distribution is tried already: the wheel was built from it.
    """
    with tempfile.TemporaryDirectory() as folder:
        programs = Path(folder, "bin")
        project.run(sys.executable, "-m", "venv", folder)
        project.run(programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[client]")
        for program in ("registry-spooler", "registry-client", "kubectl-spool"):
            printed = project.run(programs / program, "--version")
            if project.version not in printed:
                raise ReleaseError(f"{program} of {wheel.name} says {printed!r}")
