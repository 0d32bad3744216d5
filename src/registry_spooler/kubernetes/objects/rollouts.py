"""How far a rollout is, and why it does not go on, in the words of the cluster.

`rollout_state` reads a workload's status by the rules of `kubectl rollout status`. The new pods are those that have
the new image. One of them that the kubelet says it cannot start ends the wait at once: the progress deadline of a
Deployment is ten minutes by default, and other kinds have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import anyio

from registry_spooler.kubernetes.cluster_errors import KubeAnswer, RolloutFailed
from registry_spooler.kubernetes.objects.workloads import CRON_JOB, DAEMON_SET, STATEFUL_SET, Workload, WorkloadKind
from registry_spooler.text import duration_text

if TYPE_CHECKING:
    from registry_spooler.kubernetes.api import Cluster
    from registry_spooler.kubernetes.redial import Redial

POLL_SECONDS: Final = 0.4
LOG_LINES: Final = 15
"""Of the failing container, from the end."""
EVENTS: Final = 5
_STUCK: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)
"""Reasons for which a container waits, and that seldom pass by themselves."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """What a workload's status says; `failure` is empty while it may still succeed."""

    text: str
    is_done: bool
    failure: str = ""


def rollout_state(kind: WorkloadKind, document: dict[str, Any]) -> RolloutState:
    """Return how far the rollout of a workload is."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    if kind is CRON_JOB:
        return RolloutState("the next job runs the image", is_done=True)
    if _strategy(spec) == "OnDelete":
        return RolloutState("each pod gets the image when it is deleted (OnDelete)", is_done=True)
    if int(document["metadata"].get("generation") or 0) > int(status.get("observedGeneration") or 0):
        return RolloutState("the cluster has not begun", is_done=False)
    wanted, updated, available, old = _counts(kind, spec, status)
    text = f"{updated} of {wanted} pods updated, {available} available"
    if old > 0:
        text += f", {old} old"
    return RolloutState(text, updated >= wanted and available >= wanted and old <= 0, _failed_condition(status))


def _strategy(spec: dict[str, Any]) -> str:
    return str((spec.get("updateStrategy") or {}).get("type") or "")


def _counts(kind: WorkloadKind, spec: dict[str, Any], status: dict[str, Any]) -> tuple[int, int, int, int]:
    """Pods wanted, updated, available, and old ones that have to go."""

    def count(name: str) -> int:
        return int(status.get(name) or 0)

    if kind is DAEMON_SET:
        return count("desiredNumberScheduled"), count("updatedNumberScheduled"), count("numberAvailable"), 0
    replicas = spec.get("replicas")
    wanted = 1 if replicas is None else int(replicas)
    if kind is STATEFUL_SET:
        rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
        kept = min(wanted, int(rolling.get("partition") or 0))
        updated = wanted if status.get("updateRevision") == status.get("currentRevision") else count("updatedReplicas")
        return wanted, min(wanted, updated + kept), count("availableReplicas"), 0
    return wanted, count("updatedReplicas"), count("availableReplicas"), count("replicas") - count("updatedReplicas")


def _failed_condition(status: dict[str, Any]) -> str:
    for condition in status.get("conditions") or []:
        is_late = condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
        is_refused = condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
        if is_late or is_refused:
            return " ".join(str(condition.get("message") or condition.get("reason")).split())
    return ""


@dataclass(frozen=True, slots=True)
class PodTrouble:
    """A new pod that is not ready; `is_stuck` if waiting longer is of little use."""

    pod: str
    container: str
    """Empty when it is the pod that waits."""
    reason: str
    is_stuck: bool

    def __str__(self) -> str:
        where = f"pod {self.pod}, container {self.container}" if self.container else f"pod {self.pod}"
        return f"{where}: {self.reason}"


def pod_trouble(pod: dict[str, Any]) -> PodTrouble | None:
    """Return why a pod is not ready, if it says so."""
    name, status = str(pod["metadata"]["name"]), pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return PodTrouble(name, "", f"no node takes it: {condition.get('message')}", is_stuck=False)
    for container in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if reason := str(waiting.get("reason") or ""):
            said = " ".join(f"{reason}: {waiting.get('message') or ''}".strip(": ").split())[:400]
            ended = (container.get("lastState") or {}).get("terminated") or {}
            if "exitCode" in ended:
                said += f" (it ended with exit code {ended['exitCode']})"
            return PodTrouble(name, str(container.get("name")), said, is_stuck=reason in _STUCK)
    return None


async def wait_for_rollout(
    cluster: Cluster,
    workload: Workload,
    image: str,
    *,
    seconds: float,
    redial: Redial,
    on_change: Callable[[str], None],
) -> None:
    """Return when all pods run the image. RolloutFailed says why they do not; the rollout itself goes on.

    `on_change` is told each state that differs from the one before.
    """
    shown, trouble = "", None
    with anyio.move_on_after(seconds):
        while True:
            document = await redial.run(
                lambda: cluster.get_json(
                    workload.path, asked=f"read {workload.title}", permission=f"get {workload.kind.plural}"
                )
            )
            state = rollout_state(workload.kind, document)
            trouble = None if state.is_done else await _new_trouble(cluster, workload, document, image, redial)
            text = f"{state.text}; {trouble}" if trouble else state.text
            if text != shown:
                shown = text
                on_change(text)
            if state.is_done:
                return
            if state.failure or (trouble and trouble.is_stuck):
                raise await _failure(cluster, workload, trouble, state.failure)
            await anyio.sleep(POLL_SECONDS)
    raise await _failure(cluster, workload, trouble, f"it is not complete after {duration_text(seconds)} ({shown})")


async def _new_trouble(
    cluster: Cluster, workload: Workload, document: dict[str, Any], image: str, redial: Redial
) -> PodTrouble | None:
    """Return what ails the pods that have the new image; what is stuck counts first."""
    query = [("labelSelector", label_selector((document.get("spec") or {}).get("selector") or {}))]
    try:
        answer = await redial.run(
            lambda: cluster.get_json(cluster.pods_path, query, asked="list pods", permission="list pods")
        )
    except KubeAnswer:
        return None  # whoever may not see pods has the workload's own status
    new = [
        pod
        for pod in answer.get("items") or []
        if workload.image_in(pod.get("spec") or {}) == image and "deletionTimestamp" not in pod["metadata"]
    ]
    troubles = [trouble for pod in new if (trouble := pod_trouble(pod)) is not None]
    return min(troubles, key=lambda trouble: not trouble.is_stuck, default=None)


def label_selector(selector: dict[str, Any]) -> str:
    """Return a workload's selector as a query has it."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or []:
        key, values = expression["key"], ",".join(expression.get("values") or [])
        forms = {"Exists": key, "DoesNotExist": f"!{key}", "In": f"{key} in ({values})"}
        parts.append(forms.get(expression["operator"], f"{key} notin ({values})"))
    return ",".join(parts)


async def _failure(cluster: Cluster, workload: Workload, trouble: PodTrouble | None, reason: str) -> RolloutFailed:
    said = str(trouble) if trouble is not None and (trouble.is_stuck or not reason) else reason
    events: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    if trouble is not None:
        events = await _events(cluster, trouble.pod)
        log = await _log(cluster, trouble.pod, trouble.container) if trouble.container else ()
    return RolloutFailed(
        workload=workload.title,
        namespace=workload.namespace,
        reason=said,
        pod=trouble.pod if trouble is not None else "",
        events=events,
        log=log,
    )


async def _events(cluster: Cluster, name: str) -> tuple[str, ...]:
    """What the cluster complained about lately, each once, if that may be read."""
    path = f"/api/v1/namespaces/{quote(cluster.namespace, safe='')}/events"
    query = [("fieldSelector", f"involvedObject.name={name},type=Warning")]
    try:
        answer = await cluster.get_json(path, query, asked="read events", permission="list events")
    except KubeAnswer:
        return ()
    said = (
        f"{event.get('reason')}: {' '.join(str(event.get('message') or '').split())[:400]}"
        for event in answer.get("items") or []
    )
    return tuple(dict.fromkeys(said))[-EVENTS:]


async def _log(cluster: Cluster, pod: str, container: str) -> tuple[str, ...]:
    """The last lines that the container wrote, if there are any and they may be read."""
    query = [("container", container), ("tailLines", str(LOG_LINES))]
    path = f"{cluster.pods_path}/{quote(pod, safe='')}/log"
    try:
        lines = [
            line.decode("utf-8", "replace")[:400]
            async for line in cluster.read_lines(path, query, asked=f"read the log of pod {pod}")
        ]
    except KubeAnswer:
        return ()  # a container that never ran has none, which is a 400
    return tuple(lines[-LOG_LINES:])
