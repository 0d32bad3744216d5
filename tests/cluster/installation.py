"""The spooler in a cluster, and the two people around it: the admin, and one who has only the role for pushing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.cluster import Cluster
from localcluster.namespaces import wait_until

NAMESPACE = "registry"
DEPLOYMENT = "deployment/registry-spooler"
SELECTOR = "app.kubernetes.io/name=registry-spooler"
PROGRAM = Path(sys.executable).parent / "kubectl-spool"
ROLE = "registry-spooler-push"
SERVICE_SECONDS = 400
"""Controllers and kube-proxy wait up to a minute each to ask again when the API server has been away."""


@dataclass(frozen=True)
class Outcome:
    """What a program came to."""

    code: int
    stdout_bytes: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        """What it printed, where that is text."""
        return self.stdout_bytes.decode()

    @property
    def digest(self) -> str:
        """The digest at the end of the pull reference that a push prints."""
        return self.stdout.strip().rpartition("@")[2]


class Installation:
    """One namespace with the spooler in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def install(self, *options: str) -> None:
        """Install it as the README says, or bring it up to date, and let the group `pushers` push."""
        admin = [*self.cluster.command(), str(PROGRAM)]
        namespace = ("--create-namespace", "--namespace", NAMESPACE)
        subprocess.run([*admin, "install", *namespace, *options], check=True)
        self.kubectl("delete", "rolebinding", "registry-pushers", "--ignore-not-found")
        self.kubectl("create", "rolebinding", "registry-pushers", f"--role={ROLE}", "--group=pushers")

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as the admin, in the namespace."""
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *arguments)

    def start(
        self, *arguments: str, folder: Path, user: str = "pusher", namespace: str = NAMESPACE
    ) -> subprocess.Popen[bytes]:
        """Start `kubectl spool` as somebody, in a folder of theirs."""
        return self._start([str(PROGRAM), *arguments, f"--namespace={namespace}"], folder, user)

    def spool(self, *arguments: str, folder: Path, user: str = "pusher", namespace: str = NAMESPACE) -> Outcome:
        """Run `kubectl spool` as somebody, in a folder of theirs."""
        return finish(self.start(*arguments, folder=folder, user=user, namespace=namespace))

    def as_pusher(self, *arguments: str, folder: Path) -> str:
        """Run plain kubectl as the pusher; it has to succeed."""
        outcome = finish(self._start(["kubectl", f"--namespace={NAMESPACE}", *arguments], folder, "pusher"))
        assert 0 == outcome.code, outcome
        return outcome.stdout

    def pods(self) -> list[dict[str, Any]]:
        """The pods that are there and do not go."""
        found = json.loads(self.kubectl("get", "pods", "--selector", SELECTOR, "--output=json"))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    @property
    def pod(self) -> str:
        """The name of the one pod."""
        (pod,) = self.pods()
        return str(pod["metadata"]["name"])

    def kill(self, container: str) -> None:
        """Kill one of the pod's containers, as the kernel does when memory is short."""
        (pod,) = self.pods()
        (found,) = (status for status in statuses(pod) if status["name"] == container)
        number = found["containerID"].removeprefix("containerd://")
        self.cluster.nodes[0].run("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", number)

    def wait_until_ready(self) -> None:
        """Return when node and pod are ready.

        A rollout's status tells of a new template; it may not know yet that a pod has gone.
        """
        self.cluster.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
        self.kubectl("rollout", "status", DEPLOYMENT, "--timeout=120s")
        wait_until(self._is_ready, "a pod that is ready", self.cluster.nodes[0].folder / "logs" / "kubelet.log")

    def _is_ready(self) -> bool:
        conditions = [
            {found["type"]: found["status"] for found in pod["status"].get("conditions", ())} for pod in self.pods()
        ]
        return ["True"] == [found.get("Ready") for found in conditions]

    def manifest(self, repository: str, tag: str) -> tuple[str, dict[str, Any]]:
        """Ask for a manifest as the nodes do, through the Service; its digest and its content."""
        address = self.kubectl("get", "service", "registry", "--output=jsonpath={.spec.clusterIP}")
        # The Service leads nowhere, or to the pod before, until the controllers and kube-proxy know of the pod.
        wait_until(
            lambda: self._curl(f"http://{address}:5000/v2/").returncode == 0,
            "a Service that leads to the registry",
            self.cluster.nodes[0].folder / "logs" / "proxy.log",
            SERVICE_SECONDS,
        )
        accept = "Accept: application/vnd.oci.image.manifest.v1+json"
        answer = self._curl("--header", accept, f"http://{address}:5000/v2/{repository}/manifests/{tag}")
        content = answer.stdout
        assert answer.returncode == 0, answer
        return f"sha256:{hashlib.sha256(content).hexdigest()}", json.loads(content)

    def _curl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        curl = ("curl", "--silent", "--fail", "--connect-timeout", "2", *arguments)
        return subprocess.run([*self.cluster.nodes[0].enter("--net"), *curl], check=False, capture_output=True)

    def uploaded_bytes(self, repository: str) -> int:
        """How much of the uploads to a repository has come to the registry's disk and is not yet a blob."""
        folders = self.cluster.folder.glob(f"volumes/*/docker/registry/v2/repositories/{repository}/_uploads/*/data")
        return sum(_size(path) for path in folders)

    def wait_for_spooled(self, at_least: int) -> None:
        """Return when so many bytes of a file that is being published are in the spool directory."""
        log = self.cluster.nodes[0].folder / "logs" / "kubelet.log"
        spool = self.cluster.folder / "volumes"
        wait_until(lambda: any(_size(path) >= at_least for path in spool.glob("*/*~")), "a file in the spool", log)

    def wait_for_upload(self, repository: str, at_least: int) -> None:
        """Return when a push is under way."""
        log = self.cluster.nodes[0].folder / "logs" / "kubelet.log"
        wait_until(lambda: self.uploaded_bytes(repository) >= at_least, f"an upload to {repository}", log)

    def _start(self, command: list[str], folder: Path, user: str) -> subprocess.Popen[bytes]:
        whole = [*self.cluster.command(user), f"HOME={folder}", *command]
        return subprocess.Popen(whole, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The states of a pod's containers, the sidecars first."""
    return [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    """Wait for a program."""
    stdout, stderr = process.communicate(timeout=240)
    return Outcome(process.returncode, stdout, stderr.decode())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # complete by now, and moved
        return 0
