"""A pod with the spooler and a registry in it, and the way to its API server.

`RealCluster` is one of `./dev cluster`: it wants root and the programs of Kubernetes. `StandIn` is the API server of
the tests, each exec a process of this machine: no ports are forwarded there, and no pod can start.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from bench.over_wire.link import Line, Link
from bench.process import memory
from bench.registry import Registry
from bench.spooler import Spooler, clean_environment
from cluster.installation import NAMESPACE, Installation
from localcluster import programs
from localcluster.cluster import Cluster
from support.cluster.apiserver import ApiServer, write_certificates
from support.containers.machine import REGISTRY, SPOOLER, save_images

DIRECT = Line(1e11, 0)
"""As good as no link."""


class FarEnd(Protocol):
    """What the senders need to know of it."""

    namespace: str
    title: str
    is_real: bool
    """Whether ports can be forwarded, and pods started."""

    @property
    def pod(self) -> str:
        """The pod's name."""

    def link(self, line: Line) -> Link:
        """A line to the API server, not yet entered."""

    def command(self, port: int, home: Path) -> list[str]:
        """The start of a command line that runs the rest of it as a user whose home that is, through a link."""

    def memory_bytes(self) -> int:
        """What the pod's processes hold now, page cache aside."""


@contextmanager
def opened(folder: Path, tell: Callable[[str], None]) -> Iterator[FarEnd]:
    """The best far end that can be had here, for as long as the block lasts."""
    found = programs.at_hand() if os.geteuid() == 0 else None
    if found is None:
        tell(
            f"no cluster, since this is not root or {programs.VARIABLE} is not set: the tests' stand-in takes its place"
        )
    with _real_cluster(found, folder, tell) if found is not None else stand_in(folder) as far_end:
        yield far_end


class RealCluster:
    """A cluster with what `kubectl spool install` makes of it."""

    namespace = NAMESPACE
    title = "a cluster of ./dev cluster"
    is_real = True

    def __init__(self, installation: Installation) -> None:
        self._cluster = installation.cluster
        self.installation = installation
        self._memory: list[Path] = []

    @property
    def pod(self) -> str:
        """The pod's name."""
        return self.installation.pod

    def link(self, line: Line) -> Link:
        """A line to the API server, in the cluster's network."""
        server = urlsplit(self._config()["clusters"][0]["cluster"]["server"])
        assert server.hostname is not None
        assert server.port is not None
        return Link((server.hostname, server.port), line, self._cluster.nodes[0].enter("--net"))

    def command(self, port: int, home: Path) -> list[str]:
        """Run as the cluster's admin: rivals need rights that pushers have not."""
        path = _write_config(self._config(), port, home, self.namespace)
        variables = _variables(path, home, f"{self._cluster.programs}:{os.environ['PATH']}")
        return [*self._cluster.nodes[0].enter("--net"), "env", "-i", *variables]

    def memory_bytes(self) -> int:
        """What the control groups of the pod's containers say."""
        self._memory = self._memory or self._memory_files()
        return sum(_resident(path) for path in self._memory)

    def _memory_files(self) -> list[Path]:
        (pod,) = self.installation.pods()
        numbers = [state["containerID"].removeprefix("containerd://") for state in pod["status"]["containerStatuses"]]
        folders = (folder for number in numbers for folder in Path("/sys/fs/cgroup").glob(f"**/*{number}*"))
        return [folder / "memory.stat" for folder in folders if (folder / "memory.stat").exists()]

    def _config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._cluster.kubeconfig("admin").read_text())
        return found


class StandIn:
    """The tests' API server, a registry and a daemon, all on this machine."""

    namespace = "registry"
    title = "the tests' stand-in for a cluster"
    is_real = False

    def __init__(self, api: ApiServer, processes: Sequence[int], folder: Path) -> None:
        self.pod = api.pods[0]
        self._api = api
        self._processes = processes
        self._config = json.loads(api.kubeconfig(folder / "kubeconfig").read_text())

    def link(self, line: Line) -> Link:
        """A line to the API server."""
        return Link(("127.0.0.1", self._api.port), line)

    def command(self, port: int, home: Path) -> list[str]:
        """Run as the one user that there is."""
        path = _write_config(self._config, port, home, self.namespace)
        return ["env", "-i", *_variables(path, home, os.environ["PATH"])]

    def memory_bytes(self) -> int:
        """What the daemon and the registry hold."""
        return sum(memory(pid)[0] for pid in self._processes)


@contextmanager
def _real_cluster(found: Path, folder: Path, tell: Callable[[str], None]) -> Iterator[FarEnd]:
    cluster = Cluster("bench")
    cluster.down()  # one that a killed run has left
    archive = folder / "images.tar"
    tell("starting a cluster, and building its images")
    try:
        with ThreadPoolExecutor() as side_by_side:
            for step in (side_by_side.submit(cluster.up, found), side_by_side.submit(save_images, archive)):
                step.result()
        cluster.load(archive)
        archive.unlink()
        installation = Installation(cluster)
        installation.install("--image", SPOOLER, "--registry-image", REGISTRY)
        installation.kubectl("rollout", "status", "daemonset/registry-node-access", "--timeout=60s")
        yield RealCluster(installation)
    finally:
        cluster.down()


@contextmanager
def stand_in(folder: Path) -> Iterator[FarEnd]:
    with ExitStack() as stack:
        registry = stack.enter_context(Registry())
        spooler = stack.enter_context(Spooler(folder / "spooler", registry))
        certificates = folder / "certificates"
        certificates.mkdir()
        api = ApiServer(spooler.spool, write_certificates(certificates), registry=registry.host)
        api.health_port = spooler.health_port
        stack.enter_context(_serving(api))
        yield StandIn(api, [spooler.pid, registry.pid], folder)


@contextmanager
def _serving(api: ApiServer) -> Iterator[None]:
    """Have a server of this process's own event loop, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(api.__aenter__(), loop).result()
        yield
        asyncio.run_coroutine_threadsafe(api.__aexit__(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _write_config(config: dict[str, Any], port: int, home: Path, namespace: str) -> Path:
    """Lead a kubeconfig through a link; the server's certificate is checked for its own name all the same."""
    (cluster,) = config["clusters"]
    server = cluster["cluster"]["server"]
    through = cluster["cluster"] | {
        "server": f"https://127.0.0.1:{port}",
        "tls-server-name": urlsplit(server).hostname,
    }
    (context,) = config["contexts"]
    changed = {
        "clusters": [cluster | {"cluster": through}],
        "contexts": [context | {"context": context["context"] | {"namespace": namespace}}],
    }
    path = home / f"kubeconfig-{port}"
    path.write_text(json.dumps(config | changed))
    return path


def _variables(kubeconfig: Path, home: Path, path: str) -> list[str]:
    own = {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": path}
    kept = {name: value for name, value in clean_environment().items() if not name.startswith(("XDG_", "KUBE"))}
    return [f"{name}={value}" for name, value in (kept | own).items()]


def _resident(statistics: Path) -> int:
    """A control group's anonymous memory, in either version."""
    try:
        fields = dict(line.split() for line in statistics.read_text().splitlines())
    except OSError:  # the container has gone
        return 0
    return int(fields.get("anon") or fields["total_rss"])
