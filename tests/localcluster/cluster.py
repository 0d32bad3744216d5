"""A cluster from its start to its end. Its folder holds all that it is: certificates, settings, logs, volumes."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from localcluster import cgroups, control_plane, images, network, objects, worker
from localcluster.certificates import ADMIN_GROUP, Authority
from localcluster.namespaces import Namespaces, wait_until

FOLDER = Path(__file__).resolve().parent.parent.parent / ".cache" / "cluster"
DEFAULT_NAME = "default"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
CONTAINERD_ANSWERS = ("ctr", "version")


class Cluster:
    """One cluster by its name, running or not."""

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a cluster: small letters, digits and dashes")
        self.name = name
        self.folder = FOLDER / name
        self.authority = Authority(self.folder / "certificates")

    @property
    def nodes(self) -> list[Namespaces]:
        """The nodes; the first one also runs the control plane. None if the cluster is not up."""
        return sorted((Namespaces(path) for path in self.folder.glob("node*")), key=lambda node: number_of(node))

    @property
    def is_running(self) -> bool:
        """Whether its first node is there, and with it everything else."""
        return bool(nodes := self.nodes) and nodes[0].pid is not None

    @property
    def programs(self) -> Path:
        """The folder with the programs that it runs."""
        return Path((self.folder / "programs").readlink())

    def up(self, programs: Path, nodes: int = 1) -> None:
        """Start it afresh, and return when all nodes are ready. What a dead one has left behind goes."""
        with self._alone():
            if self.is_running:
                raise RuntimeError(f"the cluster {self.name!r} runs already")
            self._clean()
            try:
                self._make_folder(programs, nodes)
                self._start(nodes)
            except BaseException:
                self._end()
                raise

    def down(self) -> None:
        """End it, if it runs, and remove all that it was."""
        with self._alone():
            self._end()
            self._clean()

    def command(self, user: str = "admin", group: str | None = None) -> list[str]:
        """Return the start of a command line that runs the rest of it in the cluster's network, as a user of it."""
        self.kubeconfig(user, group)
        variables = (f"KUBECONFIG={self.folder / 'kubeconfig' / user}", f"PATH={self.programs}:{os.environ['PATH']}")
        return [*self.nodes[0].enter("--net"), "env", *variables]

    def kubeconfig(self, user: str, group: str | None = None) -> Path:
        """Return the kubeconfig of a user, who is in the group GROUP, or in the one called USERs."""
        path = self.folder / "kubeconfig" / user
        if not path.exists():
            self._sign(user, user, (group or f"{user}s",))
        return path

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl as the admin; its standard output."""
        command = [*self.command(), "kubectl", *arguments]
        return subprocess.run(command, check=True, input=text, stdout=subprocess.PIPE, text=True).stdout

    def load(self, archive: Path, node: int | None = None) -> None:
        """Import an archive's images into one node, or into all."""
        for namespaces in self.nodes if node is None else [self.nodes[node - 1]]:
            images.load(namespaces, archive)

    def restart(self, program: str, node: int = 1, after_seconds: float = 0) -> None:
        """Kill a program, and start it again."""
        namespaces = self.nodes[node - 1]
        namespaces.kill(program)
        time.sleep(after_seconds)
        self.start(program, node)

    def start(self, program: str, node: int = 1) -> None:
        """Start one of the programs."""
        commands = worker.commands(node) | (control_plane.commands() if node == 1 else {})
        self.nodes[node - 1].start(program, commands[program])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let nobody else start or end this cluster meanwhile."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (FOLDER / f".{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_folder(self, programs: Path, nodes: int) -> None:
        self.folder.mkdir()
        for name in ("kubeconfig", "volumes"):
            (self.folder / name).mkdir()
        (self.folder / "programs").symlink_to(programs)
        self.authority.make()
        self._sign("admin", "admin", (ADMIN_GROUP,))
        for name, (user, groups) in control_plane.CLIENTS.items():
            self._sign(name, user, groups)
        self.authority.sign("apiserver", "kube-apiserver", hosts=control_plane.APISERVER_HOSTS)
        control_plane.write(self.folder)
        images.write_pause(self.folder / "pause.tar")
        for number in range(1, nodes + 1):
            name = f"node{number}"
            self._sign(name, f"system:node:{name}", ("system:nodes",), (name, network.node_address(number)))
            worker.write(self.folder / name, number, cgroups.path_of(self.folder, number))
            for at in range(1, objects.VOLUMES_PER_NODE + 1):
                (self.folder / objects.volume_folder(number, at)).mkdir()

    def _sign(self, name: str, user: str, groups: tuple[str, ...], hosts: tuple[str, ...] = ()) -> None:
        self.authority.sign(name, user, groups, hosts)
        (self.folder / "kubeconfig" / name).write_text(self.authority.kubeconfig(name))

    def _start(self, count: int) -> None:
        first, *others = self.nodes
        first.make(self.programs)
        for node in others:
            node.make(self.programs, within=first)
        for number, node in enumerate(self.nodes, 1):
            network.connect(number, node, first)
            cgroups.make(self.folder, number)
        network.route_pods(self.nodes)
        with ThreadPoolExecutor() as both:
            steps = [
                both.submit(self._start_control_plane, count),
                *(both.submit(self._start_runtime, n) for n in range(1, count + 1)),
            ]
            for step in steps:
                step.result()
        for number in range(1, count + 1):
            self.start("proxy", number)
            self.start("kubelet", number)
        self._wait_for_nodes(count)

    def _start_control_plane(self, nodes: int) -> None:
        self.start("etcd")
        self.start("apiserver")
        wait_until(lambda: self._asks("get", "--raw=/readyz"), "the API server", self._log("apiserver"))
        for program in ("controller-manager", "scheduler", "dns"):
            self.start(program)
        self.kubectl("apply", "--filename=-", text=objects.initial(nodes))

    def _start_runtime(self, number: int) -> None:
        node = self.nodes[number - 1]
        self.start("containerd", number)
        log = node.folder / "logs" / "containerd.log"
        wait_until(lambda: not node.run(*CONTAINERD_ANSWERS, check=False).returncode, "containerd", log)
        images.load(node, self.folder / "pause.tar")

    def _wait_for_nodes(self, count: int) -> None:
        ready = ("wait", "--for=condition=Ready", "--timeout=1s", *(f"node/node{n}" for n in range(1, count + 1)))
        wait_until(lambda: self._asks(*ready), "the nodes", self._log("kubelet"))
        account = ("get", "serviceaccount", "default")
        wait_until(lambda: self._asks(*account), "the first service account", self._log("controller-manager"))

    def _asks(self, *arguments: str) -> bool:
        """Return whether kubectl got what it asked for."""
        return not subprocess.run([*self.command(), "kubectl", *arguments], check=False, capture_output=True).returncode

    def _log(self, program: str) -> Path:
        return self.nodes[0].folder / "logs" / f"{program}.log"

    def _end(self) -> None:
        for node in self.nodes[:1]:
            node.end()

    def _clean(self) -> None:
        cgroups.remove(self.folder)
        if self.folder.exists():
            shutil.rmtree(self.folder)


def number_of(node: Namespaces) -> int:
    """Return a node's number; they count from 1."""
    return int(node.folder.name.removeprefix("node"))


def existing() -> list[Cluster]:
    """Return the clusters whose folder is there, running or not."""
    return [Cluster(path.name) for path in sorted(FOLDER.glob("*")) if path.is_dir()]
