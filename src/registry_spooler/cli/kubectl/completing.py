"""What the shell completes: images of an engine and files, what the registry holds, and workloads.

A shell waits for the answer until Ctrl-C, so each source has a limited time, and one that fails completes nothing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import click

from registry_spooler.cli.kubectl.pushing.engines import ENGINES
from registry_spooler.cli.kubectl.target import ClusterTarget
from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.objects.workloads import CRON_JOB, KINDS, WorkloadChoice, workload_names

if TYPE_CHECKING:
    from registry_spooler.client import SpoolerClient

SECONDS: Final = 30.0
"""Plenty for a cluster that is far away."""


def images_and_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The images that docker, podman and nerdctl have, and files; then also what the registry holds."""
    words = [*_engine_images(), *_files(incomplete)]
    if context.params.get(parameter.name or ""):
        words += references(context, parameter, incomplete)
    return _fitting(words, incomplete)


def references(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The registry's repositories, and behind a colon a repository's tags."""
    repository, colon, _ = incomplete.rpartition(":")

    async def ask(client: SpoolerClient) -> list[str]:
        if colon:
            return [f"{repository}:{tag}" for tag in await client.tags(repository)]
        return list(await client.repositories(tries=1))

    return _fitting(_asked(_target(context), ask), incomplete)


def workloads(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The kinds, and behind a slash the workloads of a kind."""
    if "/" not in incomplete:
        return _fitting([f"{kind.name}/" for kind in KINDS], incomplete)
    try:
        kind = WorkloadChoice.parse(f"{incomplete.partition('/')[0]}/x").kind or CRON_JOB
    except ValueError:
        return []
    target = _target(context)
    prefix = incomplete.partition("/")[0]

    async def work() -> list[str]:
        from registry_spooler.kubernetes.api import Cluster
        from registry_spooler.kubernetes.config import log_in

        namespace = context.params.get("set_namespace") or target.namespace
        login = await log_in(kubeconfig=target.kubeconfig, context=target.context, namespace=namespace)
        async with Cluster(login) as cluster:
            return [f"{prefix}/{name}" for name in await workload_names(cluster, kind)]

    return _fitting(_in_time(work), incomplete)


def _engine_images() -> list[str]:
    names: list[str] = []
    for engine in ENGINES:
        if not shutil.which(engine):
            continue
        command = [engine, "images", "--format", "{{.Repository}}:{{.Tag}}"]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603 - no shell
        except (OSError, subprocess.TimeoutExpired):
            continue
        names += [name for name in done.stdout.decode(errors="replace").split() if "<none>" not in name]
    return names


def _files(incomplete: str) -> list[str]:
    folder, slash, _ = incomplete.rpartition("/")
    try:
        entries = sorted(Path(f"{folder}/" if slash else ".").iterdir())
    except OSError:
        return []
    return [f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries]


def _fitting(words: list[str], incomplete: str) -> list[str]:
    return list(dict.fromkeys(word for word in words if word.startswith(incomplete)))


def _target(context: click.Context) -> ClusterTarget:
    """What has been typed of the cluster so far, to the group or to the command."""
    said: dict[str, object] = {}
    at: click.Context | None = context
    while at is not None:
        given = {field.name: at.params.get(field.name) for field in fields(ClusterTarget)}
        said = {name: value for name, value in given.items() if value is not None} | said
        at = at.parent
    return ClusterTarget(**said)  # type: ignore[arg-type] # click has converted them


def _asked(target: ClusterTarget, ask: Callable[[SpoolerClient], Awaitable[list[str]]]) -> list[str]:
    async def work() -> list[str]:
        async with target.connect(on_retry=lambda _: None) as client:
            return await ask(client)

    return _in_time(work)


def _in_time(work: Callable[[], Awaitable[list[str]]]) -> list[str]:
    async def limited() -> list[str]:
        with anyio.move_on_after(SECONDS):
            return await work()
        return []

    try:
        return anyio.run(limited)
    except (SpoolerError, OSError, ModuleNotFoundError):
        return []
