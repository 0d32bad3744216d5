"""The single file is tried as a user has it: with each Python here, in an empty home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from release.kubectl_spool.platforms import PYTHONS
from release.project import Project, ReleaseError

PUSH_TESTS = (
    "tests/kubernetes/test_kubectl_spool.py::test_push_prints_the_digest_and_nothing_else",
    "tests/kubernetes/test_kubectl_spool.py::test_as_a_plugin_of_kubectl",
)
"""They push through the API server that the tests play."""


def pythons() -> Iterator[Path]:
    """The Pythons of this machine that the file is for."""
    for version in PYTHONS:
        found = shutil.which(f"python{version}")
        if found and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
            yield Path(found)


def start(project: Project, file: Path) -> list[str]:
    """Start its programs with each Python; returns the names of the Pythons."""
    tried = [_start_with(project, file, python) for python in pythons()]
    if not tried:
        raise ReleaseError(f"{file.name}: there is no Python here to try it with")
    return tried


def push(project: Project, file: Path) -> None:
    """Push with the file through the API server that the tests play, by itself and as a plug-in of kubectl."""
    with tempfile.TemporaryDirectory() as folder:
        _lay_out(Path(folder), file)
        project.run(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=600"),
            *PUSH_TESTS,
            PROGRAMS=folder,
        )


def _start_with(project: Project, file: Path, python: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        _lay_out(home, file)
        (home / "python3").symlink_to(python)
        _expect(project.version, home, "kubectl-spool", "--version")
        _expect("publish", home, "kubectl-spool", "--help")
        _expect("publish\t", home, "kubectl_complete-spool", "pu")
        if kubectl := shutil.which("kubectl"):
            _expect("publish", home, kubectl, "spool", "--help")
    return python.name


def _lay_out(folder: Path, file: Path) -> None:
    """Install the file as README says."""
    shutil.copy(file, folder / "kubectl-spool")
    (folder / "kubectl_complete-spool").symlink_to("kubectl-spool")


def _expect(wanted: str, home: Path, program: str, *arguments: str) -> None:
    path = f"{home}:/usr/bin:/bin"
    found = shutil.which(program, path=path)
    assert found is not None
    environment = {"HOME": os.fspath(home), "PATH": path}
    done = subprocess.run([found, *arguments], env=environment, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode or wanted not in done.stdout:
        raise ReleaseError(f"{program} {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
