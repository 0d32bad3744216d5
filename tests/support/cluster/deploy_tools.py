"""Skaffold and Tilt, for the tests of docs/recipes.md: found on the PATH or in the user's cache, or built there.

`python tests/support/cluster/deploy_tools.py` builds both with the Go toolchain, from the modules of the Go module
proxy; Tilt needs a C compiler too. Each takes a quarter of an hour on two cores. The tests do not need them: without
one, they run its recipe's commands as it would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class DeployTool:
    """One of them, and the module that it is built from."""

    name: str
    module: str
    version: str
    needs_c: bool = False
    pages: tuple[str, ...] = ()
    """Of its own page, which other tools build and the module has not; an empty one will do."""

    def find(self) -> str | None:
        """Return the program if it is here."""
        return shutil.which(self.name) or shutil.which(str(_cache() / self.name))

    def build(self) -> None:
        """Build it into the cache from a copy of its module, as from a checkout."""
        with TemporaryDirectory() as name:
            described = json.loads(_go(Path(name), "mod", "download", "-json", f"{self.module}@{self.version}"))
            source = Path(name) / "source"
            shutil.copytree(described["Dir"], source)
            for folder in (source, *source.rglob("*/")):
                folder.chmod(0o755)  # a module's folders are not for writing
            for path in self.pages:
                (source / path).write_text("<!doctype html>\n")
            program, package = source / "built", f"./cmd/{self.name}"
            flags = ("-mod=mod", "-trimpath", "-ldflags=-s -w")
            for file in ("go.mod", "go.sum"):
                (source / file).chmod(0o644)
            _go(source, "build", *flags, "-o", str(program), package, CGO_ENABLED="1" if self.needs_c else "0")
            _cache().mkdir(parents=True, exist_ok=True)
            shutil.move(program, _cache() / self.name)


SKAFFOLD = DeployTool("skaffold", "github.com/GoogleContainerTools/skaffold/v2", "v2.16.1")
TILT = DeployTool("tilt", "github.com/tilt-dev/tilt", "v0.33.21", True, ("pkg/assets/build/index.html",))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-spooler", "tools")


def _go(folder: Path, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off", **variables}
    command = ["go", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    for tool in (SKAFFOLD, TILT):
        if tool.find() is None:
            tool.build()
