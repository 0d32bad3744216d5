"""`push --set`: workloads get the image that was pushed, and their rollouts are followed to the end.

Everything that can be found out is found out before anything is sent: the workloads and their containers, the right to
patch them, and where nodes pull from. Nothing is changed before the image is in the registry.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from registry_spooler.aio import task_group
from registry_spooler.cli.printing import warn
from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.cluster_errors import KubeAnswer, KubeError, NoPullHost, RemoteError, RolloutFailed
from registry_spooler.kubernetes.objects.workloads import CRON_JOB, Workload, WorkloadChoice, find_workloads
from registry_spooler.kubernetes.redial import Redial

if TYPE_CHECKING:
    from registry_spooler.cli.kubectl.target import ClusterTarget
    from registry_spooler.client import Receipt
    from registry_spooler.kubernetes.api import Cluster

HOSTING_PATH: Final = "/api/v1/namespaces/kube-public/configmaps/local-registry-hosting"
HOSTING_KEY: Final = "localRegistryHosting.v1"


class WorkloadType(click.ParamType[WorkloadChoice]):
    """`deployment/web`, `sts/db:main`, `app=web`."""

    name = "workload"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> WorkloadChoice:
        """Read it; a usage error when it is none."""
        if isinstance(value, WorkloadChoice):
            return value
        try:
            return WorkloadChoice.parse(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """Which workloads are to get the image, and by which host nodes pull it."""

    cluster: Cluster
    workloads: tuple[Workload, ...]
    host: str
    timeout_seconds: float
    redial: Redial
    quiet: bool

    def pull_reference(self, receipt: Receipt) -> str:
        """What the pods get: with the digest, so that a tag that is pushed again starts nothing."""
        return f"{self.host}/{receipt.image.reference}@{receipt.digest}"

    async def apply(self, image: str) -> list[tuple[Workload, SpoolerError | None]]:
        """Patch all workloads and follow their rollouts, side by side; return each with why it failed."""
        errors: dict[Workload, SpoolerError] = {}

        async def work(workload: Workload) -> None:
            try:
                await self._apply_to(workload, image)
            except KubeError as exc:
                errors[workload] = exc

        async with task_group() as tasks:
            for workload in self.workloads:
                tasks.start_soon(work, workload)
        return [(workload, errors.get(workload)) for workload in self.workloads]

    async def _apply_to(self, workload: Workload, image: str) -> None:
        from registry_spooler.kubernetes.objects.rollouts import wait_for_rollout

        def say(text: str) -> None:
            if not self.quiet:
                warn(f"{workload.title}: {text}")

        await self.redial.run(lambda: workload.set_image(self.cluster, image))
        await wait_for_rollout(
            self.cluster, workload, image, seconds=self.timeout_seconds, redial=self.redial, on_change=say
        )


@asynccontextmanager
async def prepared(
    target: ClusterTarget,
    choices: tuple[WorkloadChoice, ...],
    *,
    namespace: str | None,
    timeout_seconds: float,
    quiet: bool,
) -> AsyncGenerator[Updates]:
    """Check everything that an update needs, and hold the connection that it is made by. KubeError."""
    from registry_spooler.kubernetes.api import Cluster
    from registry_spooler.kubernetes.config import log_in

    where = replace(target, namespace=namespace or target.namespace)
    login = await log_in(kubeconfig=where.kubeconfig, context=where.context, namespace=where.namespace)
    async with Cluster(login) as cluster:
        found: dict[Workload, None] = {}
        host = ""

        async def find(choice: WorkloadChoice) -> None:
            for workload in await find_workloads(cluster, choice):
                await workload.check_right(cluster)
                found[workload] = None

        async def ask() -> None:
            nonlocal host
            host = await _pull_host(target, cluster)

        async with task_group() as tasks:
            tasks.start_soon(ask)
            for choice in choices:
                tasks.start_soon(find, choice)
        workloads = tuple(sorted(found, key=lambda each: (each.kind is CRON_JOB, each.title, each.container)))
        yield Updates(
            cluster=cluster,
            workloads=workloads,
            host=host,
            timeout_seconds=timeout_seconds,
            redial=Redial(on_retry=lambda error: warn(f"{error}; trying again")),
            quiet=quiet,
        )


def explain(error: SpoolerError) -> None:
    """Print what the cluster and the new pod said of a rollout that failed."""
    if not isinstance(error, RolloutFailed):
        return
    for title, lines in (("events", error.events), ("last lines of the log", error.log)):
        if lines:
            warn(f"pod {error.pod}, {title}:")
            for line in lines:
                warn(f"  {line}")


def to_json(workload: Workload, image: str, error: SpoolerError | None) -> dict[str, Any]:
    """Return what became of a workload, for programs."""
    return {
        "workload": workload.title,
        "namespace": workload.namespace,
        "container": workload.container,
        "image": image,
        "error": str(error) if error is not None else None,
    }


async def _pull_host(target: ClusterTarget, cluster: Cluster) -> str:
    """Return how nodes reach the registry: as the spooler was told, or else as the cluster tells everybody (KEP-1755).

    https://github.com/kubernetes/enhancements/tree/master/keps/sig-cluster-lifecycle/generic/1755-communicating-a-local-registry
    """
    async with target.connect() as client:
        try:
            host = (await client.status()).pull_host
        except RemoteError:  # it does not run, which is no hindrance to a push
            host = ""
    host = host or await _announced_host(cluster)
    if not host:
        raise NoPullHost
    return host


async def _announced_host(cluster: Cluster) -> str:
    import yaml

    try:
        document = await cluster.get_json(HOSTING_PATH, asked="read where the registry is")
        hosting = yaml.safe_load((document.get("data") or {}).get(HOSTING_KEY) or "")
    except (KubeAnswer, yaml.YAMLError):
        return ""
    if not isinstance(hosting, dict):
        return ""
    return str(hosting.get("hostFromContainerRuntime") or hosting.get("host") or "")
