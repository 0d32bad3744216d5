"""The program helm: the machine's own, or built once from its Go module into the user's cache folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.manifests.rendered import MANIFESTS, VERSIONS

CHART = MANIFESTS / "chart"
VERSION = "3.18.6"
MODULE = f"helm.sh/helm/v3/cmd/helm@v{VERSION}"
BUILD_SECONDS = 1500
"""A download of some hundred modules, and their compilation on a small machine."""


def program() -> str:
    """Its path. Without helm and without Go the test is skipped."""
    if found := shutil.which("helm"):
        return found
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-spooler", f"helm-{VERSION}")
    if not (folder / "helm").exists():
        if not shutil.which("go"):
            # Debian has no helm, and a machine for the gate need not have Go; pytest's summary names what was skipped.
            pytest.skip("there is neither helm nor Go, which would build it")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:  # the tests' processes need it at the same time
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "helm").exists():
                _build(folder)
    return str(folder / "helm")


def _build(folder: Path) -> None:
    print(f"building helm {VERSION} into {folder}")  # noqa: T201 - it takes minutes, and pytest shows it when it fails
    command = ["go", "install", "-ldflags=-s -w", MODULE]
    subprocess.run(command, env={**os.environ, "GOBIN": str(folder)}, check=True, timeout=BUILD_SECONDS)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; it cannot reach a cluster."""
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run(
        [program(), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def template(*values: str, chart: Path = CHART) -> list[dict[str, Any]]:
    """What `helm install` would create with some values, each NAME=VALUE."""
    flags = [flag for value in values for flag in ("--set", value)]
    done = helm("template", "spooler", str(chart), "--namespace=registry", f"--kube-version={VERSIONS[-1]}", *flags)
    assert 0 == done.returncode, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(*values: str) -> str:
    """What helm says of values that it does not take."""
    flags = [flag for value in values for flag in ("--set", value)]
    done = helm("template", "spooler", str(CHART), f"--kube-version={VERSIONS[-1]}", *flags)
    assert done.returncode
    return done.stderr
