"""The control groups below which a cluster's pods run: made before the kubelet starts, removed after all has ended.

They are the one thing of a cluster that lies outside its namespaces and folder. Both versions of cgroups are known.
"""

from __future__ import annotations

import errno
import hashlib
from functools import partial
from pathlib import Path

from localcluster.namespaces import wait_until

WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def name_of(folder: Path) -> str:
    """Return the name of a cluster's outermost group: that of its folder, told from those of other checkouts."""
    return f"spooler-cluster-{folder.name}-{hashlib.sha256(bytes(folder)).hexdigest()[:8]}"


def path_of(folder: Path, node: int) -> str:
    """Return a node's control group, as kubelets write it."""
    return f"/{name_of(folder)}/node{node}"


def make(folder: Path, node: int) -> None:
    """Make a node's control groups, with every controller that the machine has."""
    for root, version in _in_use():
        group = root
        for name in path_of(folder, node).strip("/").split("/"):
            if version == "cgroup2":
                _hand_down(group)
            group /= name
            group.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts these empty, and takes no process then
                if version == "cgroup" and (group / setting).exists():
                    (group / setting).write_text((group.parent / setting).read_text())


def remove(folder: Path) -> None:
    """Remove them all, innermost first. Where both versions are mounted, runc makes some in either."""
    for root, _ in _hierarchies():
        top = root / name_of(folder)
        for group in sorted((top, *top.rglob("*/")), reverse=True):
            wait_until(partial(_is_removed, group), f"the end of {group}", None)


def _is_removed(group: Path) -> bool:
    """Try to remove a group. For a moment after its last process has ended it is still busy."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        return False
    return True


def _hand_down(group: Path) -> None:
    """Let the groups below have what this one has (version 2)."""
    here = (group / "cgroup.controllers").read_text().split()
    handed_down = (group / "cgroup.subtree_control").read_text().split()
    if missing := [f"+{name}" for name in WANTED if name in here and name not in handed_down]:
        (group / "cgroup.subtree_control").write_text(" ".join(missing))


def _in_use() -> list[tuple[Path, str]]:
    """Return the hierarchies with the controllers: those of version 1 where there are both."""
    found = _hierarchies()
    return [(path, version) for path, version in found if version == "cgroup"] or found


def _hierarchies() -> list[tuple[Path, str]]:
    """Return where control groups are mounted, with the version: `cgroup` or `cgroup2`."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(Path(mount[1]), mount[2]) for mount in mounts if mount[2] in {"cgroup", "cgroup2"}]
