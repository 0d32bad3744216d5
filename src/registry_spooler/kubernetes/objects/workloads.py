"""Workloads: Deployments, StatefulSets, DaemonSets and CronJobs, chosen as users write them, and given an image.

A choice is `KIND/NAME[:CONTAINER]`, with kubectl's names and short names of the kinds, or
`[KIND/]LABEL=VALUE[,…][:CONTAINER]` for all workloads, of that kind or of any, whose pod template has these labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from registry_spooler.kubernetes.cluster_errors import KubeAnswer, KubeForbidden, KubeNotFound, NoWorkload
from registry_spooler.text import quoted

if TYPE_CHECKING:
    from registry_spooler.kubernetes.api import Cluster

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_LABEL: Final = re.compile(r"([A-Za-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?=([A-Za-z0-9_.-]*)")


@dataclass(frozen=True, slots=True)
class WorkloadKind:
    """One kind of workload, as the API server knows it."""

    name: str
    """Singular, lower-case."""
    group: str
    short_names: tuple[str, ...]
    template: tuple[str, ...] = ("spec", "template")
    """The path to its pod template."""

    @property
    def plural(self) -> str:
        """The resource's name, as rights have it."""
        return f"{self.name}s"

    def path(self, namespace: str) -> str:
        """The path of all of them in a namespace."""
        return f"/apis/{self.group}/v1/namespaces/{quote(namespace, safe='')}/{self.plural}"


DEPLOYMENT: Final = WorkloadKind("deployment", "apps", ("deploy",))
STATEFUL_SET: Final = WorkloadKind("statefulset", "apps", ("sts",))
DAEMON_SET: Final = WorkloadKind("daemonset", "apps", ("ds",))
CRON_JOB: Final = WorkloadKind("cronjob", "batch", ("cj",), ("spec", "jobTemplate", "spec", "template"))
KINDS: Final = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB)
_BY_NAME: Final = {
    spelling: kind
    for kind in KINDS
    for name in (kind.name, kind.plural, *kind.short_names)
    for spelling in (name, f"{name}.{kind.group}")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadChoice:
    """What a user wrote: a kind and a name, or labels and perhaps a kind; `container` is empty where none was named."""

    text: str
    """As it was written, without the container."""
    kind: WorkloadKind | None = None
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    container: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `KIND/NAME[:CONTAINER]` or `[KIND/]LABEL=VALUE[,…][:CONTAINER]`. ValueError says what is wrong."""
        which, colon, container = text.partition(":")
        if colon and not _NAME.fullmatch(container):
            raise ValueError(f"{quoted(container)} is not the name of a container")
        kind, name = None, which
        first, slash, rest = which.partition("/")
        if slash and first.lower() in _BY_NAME:
            kind, name = _BY_NAME[first.lower()], rest
        if "=" in name:
            if wrong := [label for label in name.split(",") if not _LABEL.fullmatch(label)]:
                raise ValueError(f"{quoted(wrong[0])} is not a label; write LABEL=VALUE")
            pairs = (label.partition("=") for label in name.split(","))
            labels = tuple((key, value) for key, _, value in pairs)
            return cls(text=which, kind=kind, labels=labels, container=container)
        if kind is None or not _NAME.fullmatch(name):
            kinds = ", ".join(kind.name for kind in KINDS)
            raise ValueError(
                f"{quoted(text)} is not a workload; write KIND/NAME[:CONTAINER] with one of {kinds}, "
                "or LABEL=VALUE[:CONTAINER]"
            )
        return cls(text=which, kind=kind, name=name, container=container)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One container of a workload's pods."""

    kind: WorkloadKind
    name: str
    namespace: str
    container: str
    is_init: bool = False

    @property
    def title(self) -> str:
        """As kubectl takes it: `deployment/web`."""
        return f"{self.kind.name}/{self.name}"

    @property
    def path(self) -> str:
        """The object's own path."""
        return f"{self.kind.path(self.namespace)}/{quote(self.name, safe='')}"

    @property
    def _permission(self) -> str:
        return f"patch {self.kind.plural}"

    async def check_right(self, cluster: Cluster) -> None:
        """Raise KubeForbidden if it may not be patched: asked with a patch that is empty and not carried out."""
        try:
            await cluster.patch(
                self.path, {}, [("dryRun", "All")], asked=f"patch {self.title}", permission=self._permission
            )
        except KubeForbidden:
            raise
        except KubeAnswer as exc:
            # The right is asked for first. A webhook that takes no dry runs is no reason to refuse the real one.
            if exc.temporary or "dry run" not in exc.message:
                raise

    async def set_image(self, cluster: Cluster, image: str) -> dict[str, Any]:
        """Give the container an image, and nothing else; return the workload as it is now."""
        containers = "initContainers" if self.is_init else "containers"
        document: dict[str, Any] = {"spec": {containers: [{"name": self.container, "image": image}]}}
        for key in reversed(self.kind.template):
            document = {key: document}
        return await cluster.patch(self.path, document, asked=f"patch {self.title}", permission=self._permission)

    def image_in(self, pod_spec: dict[str, Any]) -> str:
        """The image that a pod has for the container; empty if it has no such container."""
        found = pod_spec.get("initContainers" if self.is_init else "containers") or []
        return next((str(each.get("image")) for each in found if each.get("name") == self.container), "")


async def find_workloads(cluster: Cluster, choice: WorkloadChoice) -> tuple[Workload, ...]:
    """The workloads that are meant, in the cluster's namespace; several only for labels.

    NoWorkload if there is none, it is paused, or it has no such container.
    """
    if choice.kind is None or choice.labels:
        found = await _by_labels(cluster, choice)
    else:
        found = [(choice.kind, await _get(cluster, choice.kind, choice.name))]
    return tuple(_workload(kind, item, choice, cluster.namespace) for kind, item in found)


async def workload_names(cluster: Cluster, kind: WorkloadKind) -> list[str]:
    """The names of all workloads of a kind in the cluster's namespace."""
    return sorted(str(item["metadata"]["name"]) for item in await _list(cluster, kind))


async def _get(cluster: Cluster, kind: WorkloadKind, name: str) -> dict[str, Any]:
    asked, permission = f"read {kind.name} {name}", f"get {kind.plural}"
    path = f"{kind.path(cluster.namespace)}/{quote(name, safe='')}"
    try:
        return await cluster.get_json(path, asked=asked, permission=permission)
    except KubeNotFound as exc:
        raise NoWorkload(
            f"namespace {cluster.namespace} has no {kind.name} {quoted(name)}; see `kubectl get {kind.plural} "
            f"-n {cluster.namespace}`, and choose another namespace with --set-namespace"
        ) from exc


async def _by_labels(cluster: Cluster, choice: WorkloadChoice) -> list[tuple[WorkloadKind, dict[str, Any]]]:
    kinds = (choice.kind,) if choice.kind is not None else KINDS
    lists = [(kind, await _list(cluster, kind)) for kind in kinds]
    found = [(kind, item) for kind, items in lists for item in items if _has_labels(_template(kind, item), choice)]
    if not found:
        raise NoWorkload(
            f"namespace {cluster.namespace} has no workload whose pods are labelled {quoted(choice.text)}; "
            "choose another namespace with --set-namespace"
        )
    return found


async def _list(cluster: Cluster, kind: WorkloadKind) -> list[dict[str, Any]]:
    path = kind.path(cluster.namespace)
    answer = await cluster.get_json(path, asked=f"list {kind.plural}", permission=f"list {kind.plural}")
    return list(answer.get("items") or [])


def _template(kind: WorkloadKind, item: dict[str, Any]) -> dict[str, Any]:
    for key in kind.template:
        item = item.get(key) or {}
    return item


def _has_labels(template: dict[str, Any], choice: WorkloadChoice) -> bool:
    labels = (template.get("metadata") or {}).get("labels") or {}
    return all(labels.get(key) == value for key, value in choice.labels)


def _workload(kind: WorkloadKind, item: dict[str, Any], choice: WorkloadChoice, namespace: str) -> Workload:
    name = str(item["metadata"]["name"])
    if (item.get("spec") or {}).get("paused"):
        raise NoWorkload(
            f"{kind.name}/{name} is paused, so that no new image is rolled out; "
            f"`kubectl rollout resume {kind.name}/{name} -n {namespace}` ends that"
        )
    spec = _template(kind, item).get("spec") or {}
    main, init = ([str(each["name"]) for each in spec.get(key) or []] for key in ("containers", "initContainers"))
    if not choice.container and len(main) > 1:
        raise NoWorkload(f"{kind.name}/{name} has several containers, {', '.join(main)}; write {choice.text}:CONTAINER")
    container = choice.container or main[0]
    if container not in (*main, *init):
        raise NoWorkload(
            f"{kind.name}/{name} has no container {quoted(container)}; it has: {', '.join((*main, *init))}"
        )
    return Workload(kind=kind, name=name, namespace=namespace, container=container, is_init=container not in main)
