"""What is released: the project's name, version and commit, and the time that stands for the build's.

The same commit gives the same bytes wherever the tools allow it, so nothing here asks for the time of day:
https://reproducible-builds.org/docs/source-date-epoch/
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "release"
_VERSION = re.compile(r'(?m)^__version__ = "([^"]+)"$')


class ReleaseError(Exception):
    """An artefact could not be made, or does not do what it is for."""


@dataclass(frozen=True, slots=True)
class Project:
    """A commit, and the folder that its artefacts go to."""

    version: str
    epoch: int
    """Seconds since 1970: `SOURCE_DATE_EPOCH`, or the time of the commit."""
    dist: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment for the tools that build."""
        return {**os.environ, "SOURCE_DATE_EPOCH": str(self.epoch)}

    def run(self, *command: str | Path, **more: str) -> str:
        """Run a tool from the project's root; its standard output. `more` is added to its environment."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=self.environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shown = " ".join(map(str, command))
            raise ReleaseError(f"{shown}: exit code {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout


def version() -> str:
    """Return the version, from the one place where it is set."""
    found = _VERSION.search((ROOT / "src" / "registry_spooler" / "version.py").read_text())
    assert found is not None
    return found[1]


def source_date_epoch() -> int:
    """Return the time that stands for the build's, in seconds."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError("not in a git checkout: set SOURCE_DATE_EPOCH to the time of the release, in seconds")
    return int(done.stdout)
