"""Which pods to talk to: those that a label selector finds, and that run.

The manifests of this project label the pod `app.kubernetes.io/name=registry-spooler` and call the container `spooler`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import NoContainer, NoPod

SELECTOR: Final = "app.kubernetes.io/name=registry-spooler"
CONTAINER: Final = "spooler"


@dataclass(frozen=True, slots=True)
class Container:
    """Where a command runs."""

    pod: str
    name: str
    image: str = ""
    uid: str = ""
    """The pod's: another pod may have the same name."""


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
    pods = [_Pod(item) for item in _list(document.get("items"))]
    running = [pod for pod in pods if pod.is_running]
    if not running:
        raise NoPod(selector, cluster.namespace, tuple(pod.state for pod in pods))
    return tuple(sorted((pod.container(container) for pod in running), key=lambda chosen: chosen.pod))


async def read_log(cluster: Cluster, container: Container, *, follow: bool, lines: int) -> AsyncIterator[str]:
    """The last `lines` lines that the container wrote, and with `follow` those to come."""
    query = [("container", container.name), ("tailLines", str(lines)), ("follow", "true" if follow else "false")]
    path = f"{cluster.pods_path}/{quote(container.pod, safe='')}/log"
    asked = f"read the log of pod {container.pod}"
    async for line in cluster.read_lines(path, query, asked=asked, permission="get pods/log"):
        yield line.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod as the API server tells it; whatever is missing reads as empty."""

    document: object

    @property
    def is_running(self) -> bool:
        """Does it run, and is it to stay?"""
        return _text(self._status, "phase") == "Running" and not self._is_going

    @property
    def state(self) -> str:
        """`name: what it waits for`, as `kubectl get pods` shows it."""
        phase = "Terminating" if self._is_going else _text(self._status, "phase") or "unknown"
        statuses = (*_list(self._status.get("initContainerStatuses")), *_list(self._status.get("containerStatuses")))
        for container in statuses:
            waiting = _object(_object(_object(container).get("state")).get("waiting"))
            phase = _text(waiting, "reason") or phase
        return f"{_text(self._metadata, 'name')}: {phase}"

    def container(self, wanted: str) -> Container:
        """One of its containers; NoContainer when it has none of that name."""
        specification = _object(_object(self.document).get("spec"))
        name, uid = _text(self._metadata, "name"), _text(self._metadata, "uid")
        # A sidecar may be an init container that keeps running (`restartPolicy: Always`).
        listed = (*_list(specification.get("containers")), *_list(specification.get("initContainers")))
        containers = [_object(container) for container in listed]
        for container in containers:
            if container.get("name") == wanted:
                return Container(name, wanted, _text(container, "image"), uid)
        raise NoContainer(wanted, name, tuple(_text(container, "name") for container in containers))

    @property
    def _is_going(self) -> bool:
        return self._metadata.get("deletionTimestamp") is not None

    @property
    def _metadata(self) -> dict[str, Any]:
        return _object(_object(self.document).get("metadata"))

    @property
    def _status(self) -> dict[str, Any]:
        return _object(_object(self.document).get("status"))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
