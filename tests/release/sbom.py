"""What the single file holds, as a CycloneDX bill of materials, checked against the format's schema."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from release.project import ROOT, Project, ReleaseError


def build(project: Project, wheels: list[Path]) -> Path:
    """List the wheels, as the image's own list is made: by what is found when they are unpacked."""
    output = project.dist / "kubectl-spool.cdx.json"
    with tempfile.TemporaryDirectory() as folder:
        for wheel in wheels:
            project.run(sys.executable, "-m", "zipfile", "--extract", wheel, folder)
        # Isolated: of the environment that runs it nothing is to be listed.
        project.run(sys.executable, "-S", ROOT / "container" / "sbom.py", output, PYTHONPATH=os.fspath(folder))
    check(output)
    return output


def check(path: Path) -> None:
    """Hold a bill against CycloneDX's schema."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text())
    if error is not None:
        raise ReleaseError(f"{path.name} is not a CycloneDX document: {error}")
