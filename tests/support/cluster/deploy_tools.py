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
    needs_c: bool

    def find(self) -> str | None:
        """Return the program if it is here."""
        return shutil.which(self.name) or shutil.which(str(_cache() / self.name))

    def build(self) -> None:
        """Build it into the cache.

        It is built from a module of our own that requires it, with what its own says to replace, and with its own
        checksums.
        """
        with TemporaryDirectory() as name:
            folder = Path(name)
            described = json.loads(_go(folder, "mod", "download", "-json", f"{self.module}@{self.version}"))
            own = json.loads(_go(folder, "mod", "edit", "-json", described["GoMod"]))
            lines = ["module tools", f"go {own['Go']}", f"require {self.module} {self.version}"]
            lines += [f"replace {_written(each['Old'])} => {_written(each['New'])}" for each in own["Replace"] or ()]
            (folder / "go.mod").write_text("\n".join([*lines, ""]))
            (folder / "go.sum").write_bytes(Path(described["Dir"], "go.sum").read_bytes())
            program, package = folder / self.name, f"{self.module}/cmd/{self.name}"
            flags = ("-mod=mod", "-trimpath", "-ldflags=-s -w")
            _go(folder, "build", *flags, "-o", str(program), package, CGO_ENABLED="1" if self.needs_c else "0")
            _cache().mkdir(parents=True, exist_ok=True)
            shutil.move(program, _cache() / self.name)


SKAFFOLD = DeployTool("skaffold", "github.com/GoogleContainerTools/skaffold/v2", "v2.16.1", needs_c=False)
TILT = DeployTool("tilt", "github.com/tilt-dev/tilt", "v0.33.21", needs_c=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-spooler", "tools")


def _written(module: dict[str, str]) -> str:
    return " ".join([module["Path"], *([module["Version"]] if "Version" in module else [])])


def _go(folder: Path, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off", **variables}
    command = ["go", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    for tool in (SKAFFOLD, TILT):
        if tool.find() is None:
            tool.build()
