"""Programs written in Go that check what is released: the machine's own, or built once from their modules."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

MODULES = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.18.6",
    "krew": "sigs.k8s.io/krew/cmd/krew@v0.4.3",
}


def find(name: str) -> str | None:
    """Return a tool's path; None where it is not, and there is no Go that would build it."""
    version = MODULES[name].rpartition("@v")[2]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-spooler")
    folder = caches / f"{name}-{version}"
    if found := shutil.which(name, path=os.pathsep.join((os.environ["PATH"], str(folder)))):
        return found
    if not shutil.which("go"):
        return None
    subprocess.run(
        ["go", "install", "-ldflags=-s -w", MODULES[name]], env={**os.environ, "GOBIN": str(folder)}, check=True
    )
    return str(folder / name)
