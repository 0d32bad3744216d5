"""The programs of Kubernetes: found in $KUBERNETES_PROGRAMS, found in the cache, or built there once.

$KUBERNETES_PROGRAMS is a folder that holds them, a `.tar.xz` that does, or a folder with such an archive. They are
built with the Go toolchain, from the modules of the Go module proxy. etcd, containerd, runc and the network's plug-ins
are Debian packages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "KUBERNETES_PROGRAMS"
VERSION = "1.34.4"
KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
COREDNS_MODULE, COREDNS_VERSION = "github.com/coredns/coredns", "v1.12.1"
ALL = (*KUBERNETES, "coredns")


class ProgramsMissing(Exception):
    """They are not where they were said to be."""


def cache() -> Path:
    """Return the folder below which programs are kept: unpacked, or built."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-spooler", "kubernetes")


def at_hand() -> Path | None:
    """Return the folder with the programs if nothing has to be built for it."""
    if named := os.environ.get(VARIABLE):
        return _unpacked(Path(named).resolve())
    return next((path for path in sorted(cache().glob("*"), reverse=True) if _is_complete(path)), None)


def have() -> Path:
    """Return the folder with the programs. Building them takes half an hour, and happens once."""
    if (found := at_hand()) is not None:
        return found
    target = cache() / VERSION
    build(target, ALL)
    return target


def _unpacked(place: Path) -> Path:
    """Return the programs at a place that somebody named."""
    if place.is_dir():
        if _is_complete(place):
            return place
        archives = sorted(place.glob("kubernetes-*.tar.xz"))
        if not archives:
            raise ProgramsMissing(f"{VARIABLE}: {place} has neither {', '.join(ALL)} nor kubernetes-*.tar.xz")
        place = archives[-1]
    if not place.exists():
        raise ProgramsMissing(f"{VARIABLE}: there is no {place}")
    target = cache() / f"{place.name.removesuffix('.tar.xz')}-{place.stat().st_size}"
    if not _is_complete(target):
        with _folder_to_be(target) as folder:
            subprocess.run(["tar", "-C", folder, "-xJf", place], check=True)
    return target


def build(target: Path, names: tuple[str, ...]) -> None:
    """Build programs into a folder, which appears when all of them are there."""
    if not shutil.which("go"):
        raise ProgramsMissing(f"there is no Go toolchain to build Kubernetes with: install it, or set {VARIABLE}")
    with _folder_to_be(target) as folder:
        if wanted := [name for name in names if name in KUBERNETES]:
            _build_kubernetes(folder, wanted)
        if "coredns" in names:
            _build_coredns(folder)


def _build_kubernetes(folder: Path, names: list[str]) -> None:
    """Build from a module that requires Kubernetes.

    Its own `go.mod` looks for the modules of `staging` in a folder beside it, which is not a part of what the proxy
    hands out: there they are modules of their own, with the same minor and patch number.
    """
    module = f"k8s.io/kubernetes@v{VERSION}"
    described = json.loads(_go(folder, "mod", "download", "-json", module))
    required = json.loads(_go(folder, "mod", "edit", "-json", described["GoMod"]))["Require"]
    staging = [entry["Path"] for entry in required if entry["Version"] == "v0.0.0"]
    lines = [f"replace {path} => {path} v0.{VERSION.partition('.')[2]}" for path in staging]
    (folder / "go.mod").write_text("\n".join(["module programs", f"require k8s.io/kubernetes v{VERSION}", *lines, ""]))
    stamp = f"-X k8s.io/component-base/version.gitVersion=v{VERSION}"
    packages = [f"k8s.io/kubernetes/cmd/{name}" for name in names]
    _go(folder, "build", "-mod=mod", "-trimpath", f"-ldflags=-s -w {stamp}", "-o", f"{folder}/", *packages)


def _build_coredns(folder: Path) -> None:
    (folder / "go.mod").write_text(f"module programs\nrequire {COREDNS_MODULE} {COREDNS_VERSION}\n")
    (folder / "go.sum").unlink(missing_ok=True)
    _go(folder, "build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", f"{folder}/coredns", COREDNS_MODULE)


def _go(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    command = ["go", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def _is_complete(folder: Path) -> bool:
    return all((folder / name).exists() for name in ALL)


@contextmanager
def _folder_to_be(target: Path) -> Iterator[Path]:
    """Make a folder that gets its name when the block has ended well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        shutil.rmtree(target, ignore_errors=True)
        folder.chmod(0o755)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
