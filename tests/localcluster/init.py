"""The process that holds a node's namespaces: process 1 in them.

It hides what is the machine's own (/run, /var, /tmp) behind the node's, writes `init.json` into the node's folder as
the sign that the namespaces are ready, and from then on collects the processes that end. Its arguments: the cluster's
folder, the node's, the folder with the programs, the host name.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

CLUSTER = "/mnt/cluster"
PROGRAMS = "/mnt/programs"
"""Where every node sees the cluster's folder and the programs of Kubernetes, wherever they lie on the machine."""

KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What a kubelet sets for the whole machine. Here files with its values cover the kernel's, so it sets nothing."""

NETWORK_SETTINGS = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/route_localnet": "1"}
"""These belong to the network namespace."""


def main(folder: Path, node: Path, programs: Path, hostname: str) -> None:
    """Prepare the namespaces, say so, and stay."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    process = outer_process()
    socket.sethostname(hostname)
    cover_mounts(folder, node, programs)
    for name, value in NETWORK_SETTINGS.items():
        Path("/proc/sys", name).write_text(value)
    run("ip", "link", "set", "lo", "up")
    ready = Path(CLUSTER, node.name, "init.json")
    ready.with_suffix(".new").write_text(json.dumps(process))
    ready.with_suffix(".new").rename(ready)
    collect_children()


def outer_process() -> dict[str, int]:
    """Return this process's number and start time as the machine has them, whose /proc is still mounted here."""
    stat = Path("/proc/self/stat").read_text()
    return {"pid": int(os.readlink("/proc/self")), "started": int(stat.rpartition(")")[2].split()[19])}


def cover_mounts(folder: Path, node: Path, programs: Path) -> None:
    """Give the node its own /run, /var, /tmp and /proc. The order counts: the folders may lie in what is covered."""
    run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    for source, target in ((folder, CLUSTER), (programs, PROGRAMS)):
        Path(target).mkdir()
        run("mount", "--bind", source, target)
    own = Path(CLUSTER, node.name)
    for name in ("var", "tmp"):
        run("mount", "--bind", own / name, f"/{name}")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    run("mount", "-t", "proc", "proc", "/proc")
    for name, value in KERNEL_SETTINGS.items():
        stand_in = own / "kernel" / name.replace("/", ".")
        stand_in.write_text(value)
        run("mount", "--bind", stand_in, f"/proc/sys/{name}")
    run("mount", "--make-rshared", "/")  # volumes that the kubelet mounts have to reach the containers


def run(*command: str | Path) -> None:
    """Run a program that has to succeed."""
    subprocess.run(command, check=True)


def collect_children() -> None:
    """Wait for ever, and for whatever ends in these namespaces without a parent."""
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
