"""`kubectl-spool` as one file for any Python 3.11 or later, its dependencies within.

The file is a zip application: `bootstrap.py` as its `__main__`, the wheels of all targets, and `contents.json`, which
says which wheels are whose. shiv would hold one set of compiled modules only. pex holds several, but resolves every
target anew when it builds.

Flow: pinned requirements → wheels for every target (pip, by hash) → one file, the same bytes each time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement

from release.kubectl_spool import bootstrap
from release.kubectl_spool.platforms import TARGETS, Target
from release.project import CACHE, ROOT, Project, ReleaseError

NAME = "kubectl-spool"
REQUIREMENTS = ROOT / "container" / "requirements-client.txt"
_PROGRAMS = (NAME, "kubectl_complete-spool")
_INSTEAD = "pip install 'registry-spooler[client]'"
_PIN = re.compile(r"(?m)^([a-z].*?)((?: \\\n    --hash=\S+)+\n)")
_SHEBANG = b"#!/usr/bin/env python3\n"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(project: Project, wheel: Path, targets: Iterable[Target] = TARGETS) -> Path:
    """Make the file with the wheel and its pinned dependencies; returns it."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    output = project.dist / NAME
    wheels = {str(target): [wheel, *download(project, target)] for target in targets}
    write(output, {name: scripts[name] for name in _PROGRAMS}, wheels)
    return output


def download(project: Project, target: Target) -> list[Path]:
    """Have a target's wheels, as pinned; a folder that is complete is not filled again."""
    folder = CACHE / "wheels" / str(target)
    stamp = folder / "requirements.txt"
    pins = pinned_for(target, REQUIREMENTS.read_text())
    if not stamp.exists() or stamp.read_text() != pins:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        wanted = folder / "wanted.txt"
        wanted.write_text(pins)
        project.run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--require-hashes", f"--requirement={wanted}", f"--dest={folder}"),
            *("--implementation=cp", f"--python-version={target.python}"),
            *(f"--platform={tag}" for tag in target.tags),
        )
        wanted.rename(stamp)
    return sorted(folder.glob("*.whl"))


def pinned_for(target: Target, pins: str) -> str:
    """Return the pins that a target needs, their markers answered: pip asks them of the Python that it runs in."""
    environment = {"python_version": target.python, "sys_platform": target.sys_platform}
    chosen = []
    for pin in _PIN.findall(pins):
        requirement = Requirement(pin[0])
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            chosen.append(f"{requirement}{pin[1]}")
    return "".join(chosen)


def write(output: Path, scripts: Mapping[str, str], wheels: Mapping[str, list[Path]]) -> None:
    """Write a file of these programs (`module:function`; the first is the default) and each target's wheels."""
    files = {path.name: path for paths in wheels.values() for path in paths}
    for path in files.values():
        _check_unpackable(path)
    contents = {
        "default": next(iter(scripts)),
        "scripts": dict(scripts),
        "instead": _INSTEAD,
        "targets": {target: _described(paths) for target, paths in sorted(wheels.items())},
    }
    with output.open("wb") as file:
        file.write(_SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            _add(archive, "__main__.py", Path(bootstrap.__file__).read_bytes())
            _add(archive, bootstrap.CONTENTS, json.dumps(contents, indent=1).encode())
            for name, path in sorted(files.items()):
                _add(archive, f"wheels/{name}", path.read_bytes())
    output.chmod(0o755)


def _described(paths: list[Path]) -> dict[str, object]:
    checksums = sorted(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths)
    return {
        "checksum": hashlib.sha256("\n".join(checksums).encode()).hexdigest()[:32],
        "files": sorted(f"wheels/{path.name}" for path in paths),
    }


def _check_unpackable(wheel: Path) -> None:
    """Refuse a wheel that has to be installed by more than unpacking."""
    with zipfile.ZipFile(wheel) as files:
        spread = [name for name in files.namelist() if ".data/" in name and ".data/scripts/" not in name]
    if spread:
        raise ReleaseError(f"{wheel.name} puts files elsewhere, which a single file cannot: {spread[0]}")


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a file as it is: wheels are compressed already, and the start is read sooner."""
    entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)
