"""Whether a node can start a pod of an image: tried with a pod that runs nothing, and told in the kubelet's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import anyio

from registry_spooler.kubernetes.cluster_errors import KubeError

if TYPE_CHECKING:
    from registry_spooler.kubernetes.api import Cluster

CHECK_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.3
_LABELS: Final = {"app.kubernetes.io/name": "registry-spooler-check", "app.kubernetes.io/part-of": "registry-spooler"}
_NOT_PULLED: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_TELLS_NOTHING: Final = frozenset({"", "ContainerCreating", "PodInitializing"})


async def trouble_with(cluster: Cluster, image: str, *, node: str | None = None, always: bool = False) -> str:
    """Return why a node cannot get an image, or an empty text if it can. KubeError if no pod may be created.

    `node` is the node's name; None leaves the choice to the scheduler. `always` has the node ask the registry even if
    it holds the image. The pod is deleted in every case.
    """
    made = await cluster.create(
        cluster.pods_path,
        check_pod(image, node=node, always=always),
        asked="create a pod",
        permission="create pods",
    )
    name = str(made["metadata"]["name"])
    path = f"{cluster.pods_path}/{quote(name, safe='')}"
    reason = "no answer from the kubelet within a minute"
    try:
        with anyio.move_on_after(CHECK_SECONDS):
            while True:
                found = await cluster.get_json(path, asked=f"look at pod {name}", permission="get pods")
                state = image_state(found.get("status") or {})
                if state is None:
                    return ""
                reason = state or reason
                if state:
                    return reason
                await anyio.sleep(POLL_SECONDS)
        return reason
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(10.0):
            await _delete(cluster, path, name)


def image_state(status: dict[str, Any]) -> str | None:
    """Return None if the node has the image, why it has not if it says so, and an empty text until it says anything."""
    if status.get("phase") in ("Running", "Succeeded", "Failed") and not status.get("containerStatuses"):
        return str(status.get("message") or "") or None
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"no node takes the pod: {condition.get('message')}"
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting")
        if waiting is None:
            return None
        if waiting.get("reason") in _NOT_PULLED:
            return " ".join(str(waiting.get("message") or waiting["reason"]).split())[:400]
        if waiting.get("reason") not in _TELLS_NOTHING:
            return None  # it could not be run, as is meant, so it is there
    return ""


async def _delete(cluster: Cluster, path: str, name: str) -> None:
    try:
        await cluster.delete(path, [("gracePeriodSeconds", "0")], asked=f"delete pod {name}", permission="delete pods")
    except KubeError:
        return  # `activeDeadlineSeconds` ends it


def check_pod(
    image: str, *, node: str | None = None, always: bool = False, pull_secrets: Sequence[dict[str, str]] = ()
) -> dict[str, Any]:
    """Return a pod that complies with the Pod Security Standard *restricted*, and whose command no image has."""
    container = {
        "name": "check",
        "image": image,
        "imagePullPolicy": "Always" if always else "IfNotPresent",
        "command": ["/registry-spooler-check"],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "registry-spooler-check-", "labels": _LABELS},
        "spec": {
            **({"nodeName": node} if node else {}),
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 600,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "imagePullSecrets": list(pull_secrets),
            "containers": [container],
        },
    }
