"""Which pods to talk to: those that a label selector finds, and that run.

The manifests of this project label the pod `app.kubernetes.io/name=registry-spooler` and call the container `spooler`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from registry_spooler.kube.cluster import Cluster
from registry_spooler.kube.errors import NoContainer, NoPod

SELECTOR: Final = "app.kubernetes.io/name=registry-spooler"
CONTAINER: Final = "spooler"


@dataclass(frozen=True, slots=True)
class Container:
    """Where a command runs."""

    pod: str
    name: str
    image: str = ""


async def find_containers(
    cluster: Cluster, selector: str = SELECTOR, container: str = CONTAINER
) -> tuple[Container, ...]:
    """The container in each pod that the selector finds and that runs, in the order of the pods' names.

    NoPod when there is none, NoContainer when a pod lacks the container.
    """
    document = await cluster.get_json(
        cluster.pods_path,
        [("labelSelector", selector)],
        asked="list pods",
        permission="list pods",
    )
    pods: list[dict[str, Any]] = document.get("items") or []
    running = [pod for pod in pods if _is_running(pod)]
    if not running:
        raise NoPod(selector, cluster.namespace, tuple(_state(pod) for pod in pods))
    found = (_container(pod, container) for pod in running)
    return tuple(sorted(found, key=lambda chosen: chosen.pod))


async def read_log(cluster: Cluster, container: Container, *, follow: bool, lines: int) -> AsyncIterator[str]:
    """The last `lines` lines that the container wrote, and with `follow` those to come."""
    query = [("container", container.name), ("tailLines", str(lines)), ("follow", "true" if follow else "false")]
    path = f"{cluster.pods_path}/{quote(container.pod, safe='')}/log"
    asked = f"read the log of pod {container.pod}"
    async for line in cluster.read_lines(path, query, asked=asked, permission="get pods/log"):
        yield line.decode("utf-8", "replace")


def _is_running(pod: dict[str, Any]) -> bool:
    going = pod.get("metadata", {}).get("deletionTimestamp")
    return pod.get("status", {}).get("phase") == "Running" and going is None


def _container(pod: dict[str, Any], wanted: str) -> Container:
    name = str(pod["metadata"]["name"])
    # A sidecar may be an init container that keeps running (`restartPolicy: Always`).
    specification = pod.get("spec", {})
    containers = [*(specification.get("containers") or []), *(specification.get("initContainers") or [])]
    for container in containers:
        if container.get("name") == wanted:
            return Container(name, wanted, str(container.get("image") or ""))
    raise NoContainer(wanted, name, tuple(str(container.get("name")) for container in containers))


def _state(pod: dict[str, Any]) -> str:
    """`name: what it waits for`, as `kubectl get pods` shows it."""
    status = pod.get("status", {})
    phase = str(status.get("phase") or "unknown")
    if pod.get("metadata", {}).get("deletionTimestamp"):
        phase = "Terminating"
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            phase = str(waiting["reason"])
    return f"{pod.get('metadata', {}).get('name')}: {phase}"
