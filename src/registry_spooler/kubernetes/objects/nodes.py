"""Nodes, and a short-lived pod that imports images into a node's own store.

A node that can pull nothing holds one image at least: the pause image, or whatever runs there. It is all that the pod
needs, since the programs are the node's: its root directory is mounted, a shell of the node's changes into it, and
there runs whatever the node has to import an archive with (`ctr`, `k3s ctr`, `docker`, `podman`). The archive comes
over the pod's exec channel.

The shell answers every few seconds, so that silence means a lost connection, and says at the end how the import ended:
the API server reports success for a command whose kubelet has died.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import anyio

from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import ExecCut, KubeAnswer, KubeError, KubeForbidden, KubeNotFound
from registry_spooler.kubernetes.exec import execute, run
from registry_spooler.kubernetes.frames import Channel, ChannelOutput
from registry_spooler.kubernetes.pods import Container
from registry_spooler.kubernetes.remote_session import Input

START_SECONDS: Final = 60.0
"""For the pod to run: its image is there already, so a node that takes longer has a reason."""
POLL_SECONDS: Final = 0.3
LIFETIME_SECONDS: Final = 6 * 3600
"""After that Kubernetes ends the pod, should this program have been killed before it could delete it."""
ERROR_BYTES: Final = 4096
"""The last of what the node's program wrote to standard error; the sentence of a failure."""

_CONTAINER: Final = "loader"
_LABELS: Final = {"app.kubernetes.io/name": "registry-spooler-loader", "app.kubernetes.io/part-of": "registry-spooler"}
_DONE: Final = b"import ended with "
_MOUNTS: Final = ("usr", "bin", "lib", "lib64")
"""What a program of the node's needs before it can change into the node's root directory."""

_IMPORT: Final = r"""
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin:/var/lib/rancher/rke2/bin:/opt/k0s
export PATH
(while echo alive; do sleep 10; done) &
alive=$!
has() { command -v "$1" >/dev/null 2>&1; }
socket=$2
if [ -z "$socket" ]; then
  for socket in /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock \
    /var/snap/microk8s/common/run/containerd.sock /run/containerd/containerd.sock; do
    [ -S "$socket" ] && break
  done
fi
case $1 in
docker) docker load ;;
cri-o) podman load ;;
*)
  if has ctr; then ctr -a "$socket" -n k8s.io images import -
  elif has k3s; then k3s ctr -a "$socket" -n k8s.io images import -
  elif has k0s; then k0s ctr -a "$socket" -n k8s.io images import -
  elif has microk8s.ctr; then microk8s.ctr -n k8s.io images import -
  elif has nerdctl; then nerdctl -a "$socket" -n k8s.io load
  else echo 'the node has none of ctr, k3s, k0s, microk8s.ctr and nerdctl' >&2; false
  fi ;;
esac >&2
code=$?
cat >/dev/null
kill $alive
echo "import ended with $code"
"""


class NodeError(SpoolerError):
    """A node cannot take images in this way; `instead` is what to type on the node."""

    node: str
    reason: str
    instead: str
    sentence = "node {node}: {reason}; on the node itself: {instead}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the API server describes it."""

    name: str
    runtime: str
    """`containerd`, `docker` or `cri-o`."""
    system: str
    """The node's operating system and the kubelet's version, which tell the distributions apart."""
    image: str
    """The smallest image that the node holds, by a name that it knows; empty when it names none."""
    socket: str
    """Where its container runtime listens, if the node says so."""

    @property
    def instead(self) -> str:
        """What to type on the node to import FILE, for when no pod may do it."""
        for word, advice in _INSTEAD.items():
            if word in self.system.lower():
                return advice
        return _BY_RUNTIME.get(self.runtime, _BY_RUNTIME["containerd"])


_INSTEAD: Final = {
    "k3s": "copy FILE to /var/lib/rancher/k3s/agent/images/ and restart k3s, or `k3s ctr images import FILE`",
    "rke2": "copy FILE to /var/lib/rancher/rke2/agent/images/ and restart rke2",
    "k0s": "copy FILE to /var/lib/k0s/images/, or `k0s ctr -n k8s.io images import FILE`",
    "talos": "Talos imports no files: push the image, and let the node pull it",
    "minikube": "`minikube image load FILE` on your own machine",
    "kind": "`kind load image-archive FILE` on your own machine",
}
_BY_RUNTIME: Final = {
    "containerd": "`ctr -n k8s.io images import FILE`",
    "docker": "`docker load -i FILE`",
    "cri-o": "`podman load -i FILE`",
}


async def list_nodes(cluster: Cluster) -> tuple[Node, ...]:
    """Return the cluster's nodes by name. KubeForbidden without the right to list nodes."""
    answer = await cluster.get_json("/api/v1/nodes", asked="list nodes", permission="list nodes")
    return tuple(sorted((_node(item) for item in answer.get("items") or []), key=lambda node: node.name))


async def import_images(
    cluster: Cluster, node: Node, archive: Input, *, socket: str = "", on_sent: Callable[[int, int], None]
) -> None:
    """Import an OCI archive into a node's image store, namespace `k8s.io`. NodeError says what to do instead.

    `on_sent` is called with the number of bytes sent, and of how many.
    """
    async with _loader_pod(cluster, node) as pod:
        command = ("chroot", "/host", "/bin/sh", "-c", _IMPORT, "import", node.runtime, socket or node.socket)
        words: list[bytes] = []
        complaint = bytearray()

        async def on_output(output: ChannelOutput) -> None:
            if output.channel is Channel.STDOUT:
                words.append(bytes(output.data))
            else:
                complaint.extend(output.data)
                del complaint[:-ERROR_BYTES]

        def is_over() -> bool:
            return _DONE in b"".join(words[-2:])

        async with execute(cluster, pod, command) as execution:
            await run(execution, on_output, stdin=_counted(archive, on_sent), is_over=is_over)
    word = b"".join(words).rpartition(_DONE)[2].split()
    if not is_over() or not word:
        raise ExecCut(pod.pod, "the import did not say how it ended")
    if word[0] != b"0":
        reason = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2] or f"exit code {word[0].decode()}"
        raise NodeError(node.name, f"the import failed: {reason}", node.instead)


@asynccontextmanager
async def _loader_pod(cluster: Cluster, node: Node) -> AsyncGenerator[Container]:
    """A running pod on the node, deleted on the way out."""
    if not node.image:
        raise NodeError(node.name, "the API server lists no image on it that a pod could run", node.instead)
    pod = await _create(cluster, node)
    path = f"{cluster.pods_path}/{quote(pod, safe='')}"
    try:
        await _running(cluster, node, pod, path)
        yield Container(pod, _CONTAINER)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(10.0):
            await _delete(cluster, path, pod)


async def _create(cluster: Cluster, node: Node) -> str:
    asked = "create a privileged pod"
    try:
        made = await cluster.create(cluster.pods_path, pod_manifest(node), asked=asked, permission="create pods")
    except KubeForbidden as exc:
        if "PodSecurity" not in exc.message:
            raise
        raise NodeError(
            node.name,
            f"namespace {cluster.namespace} allows no privileged pods (PodSecurity); choose one that does with -n, "
            "kube-system for example",
            node.instead,
        ) from exc
    return str(made["metadata"]["name"])


async def _running(cluster: Cluster, node: Node, pod: str, path: str) -> None:
    reason = "no answer from the kubelet"
    with anyio.move_on_after(START_SECONDS):
        while True:
            found = await cluster.get_json(path, asked=f"look at pod {pod}", permission="get pods")
            status = found.get("status") or {}
            if status.get("phase") == "Running":
                return
            reason = _why_not(status) or reason
            if status.get("phase") == "Failed":
                break
            await anyio.sleep(POLL_SECONDS)
    reason = await _last_event(cluster, pod) or reason
    raise NodeError(node.name, f"the pod that imports images did not start ({reason})", node.instead)


def _why_not(status: dict[str, Any]) -> str:
    for container in status.get("containerStatuses") or []:
        for state in ("waiting", "terminated"):
            found = (container.get("state") or {}).get(state) or {}
            if found.get("message"):
                return " ".join(str(found["message"]).split())[:300]
    return str(status.get("message") or "")


async def _last_event(cluster: Cluster, pod: str) -> str:
    """What the kubelet last complained about, if that may be read."""
    path = f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}/events"
    query = [("fieldSelector", f"involvedObject.name={pod},type=Warning")]
    try:
        answer = await cluster.get_json(path, query, asked="read events", permission="list events")
    except KubeAnswer:
        return ""
    events = answer.get("items") or []
    return " ".join(str(events[-1].get("message") or "").split())[:300] if events else ""


async def _delete(cluster: Cluster, path: str, pod: str) -> None:
    try:
        await cluster.delete(path, [("gracePeriodSeconds", "0")], asked=f"delete pod {pod}", permission="delete pods")
    except KubeNotFound:
        pass
    except KubeError:
        return  # `activeDeadlineSeconds` ends it


def pod_manifest(node: Node) -> dict[str, Any]:
    """Return the pod: privileged, on that node whatever taints it has, made of an image that the node holds."""
    mounts = [{"name": "host", "mountPath": "/host"}]
    volumes: list[dict[str, Any]] = [{"name": "host", "hostPath": {"path": "/", "type": "Directory"}}]
    for name in _MOUNTS:
        mounts.append({"name": name, "mountPath": f"/{name}"})
        volumes.append({"name": name, "hostPath": {"path": f"/{name}"}})
    container = {
        "name": _CONTAINER,
        "image": node.image,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
        "securityContext": {"privileged": True, "runAsUser": 0},
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "registry-spooler-loader-", "labels": _LABELS},
        "spec": {
            "nodeName": node.name,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFETIME_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": volumes,
        },
    }


async def _counted(archive: Input, on_sent: Callable[[int, int], None]) -> AsyncGenerator[Any]:
    sent = 0
    async for piece in archive.pieces:
        yield piece
        sent += memoryview(piece).nbytes
        on_sent(sent, archive.size)


def _node(item: dict[str, Any]) -> Node:
    status = item.get("status") or {}
    info = status.get("nodeInfo") or {}
    metadata = item.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    system = f"{info.get('osImage', '')} {info.get('kubeletVersion', '')} {metadata.get('name', '')}"
    return Node(
        name=str(metadata.get("name") or ""),
        runtime=str(info.get("containerRuntimeVersion") or "").partition(":")[0],
        system=system,
        image=_smallest(status.get("images") or []),
        socket=str(annotations.get("kubeadm.alpha.kubernetes.io/cri-socket") or "").removeprefix("unix://"),
    )


def _smallest(images: list[dict[str, Any]]) -> str:
    """Return a name of the smallest image, by tag where it has one; the pause image wins over all."""

    def order(image: dict[str, Any]) -> tuple[bool, int]:
        return not any("pause" in name for name in image.get("names") or []), int(image.get("sizeBytes") or 0)

    for image in sorted(images, key=order):
        names = [name for name in image.get("names") or [] if "<none>" not in name]
        if names:
            return str(min(names, key=lambda name: "@" in name))
    return ""
