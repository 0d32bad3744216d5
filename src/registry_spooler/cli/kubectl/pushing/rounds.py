"""One round of `push`: every file to one pod or to each, then the workloads; and what is printed of it.

`--dry-run` asks instead what would be sent, how much of it, and to where.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import anyio
import click

from registry_spooler.aio import task_group
from registry_spooler.cli.bars import Bars, bars
from registry_spooler.cli.kubectl.pushing.arguments import STDIN, Item
from registry_spooler.cli.kubectl.pushing.workload_updates import Updates, explain, prepared, to_json
from registry_spooler.cli.kubectl.target import ClusterTarget
from registry_spooler.cli.printing import say, say_json, warn
from registry_spooler.errors import SpoolerError
from registry_spooler.text import count_text, size_text

if TYPE_CHECKING:
    from registry_spooler.client import Receipt, SpoolerClient
    from registry_spooler.kubernetes.objects.workloads import Workload, WorkloadChoice
    from registry_spooler.kubernetes.transfer.dry_run import PushPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PushFlags:
    """How to push, and what is to run the image then."""

    compression: str
    streams: int
    jobs: int
    rate_limit: float | None
    quiet: bool
    delta: Literal["auto", "never", "always"] = "auto"
    repack: bool = False
    all_pods: bool = False
    workloads: tuple[WorkloadChoice, ...] = ()
    set_namespace: str | None = None
    set_timeout: float = 0.0


@dataclass(slots=True)
class Round:
    """What one round came to. `updated` has the workloads, each with why its rollout failed."""

    outcomes: list[Receipt | SpoolerError] = field(default_factory=list)
    image: str = ""
    """What the workloads got; empty if none was to get anything, or nothing was pushed."""
    updated: list[tuple[Workload, SpoolerError | None]] = field(default_factory=list)

    @property
    def receipts(self) -> list[Receipt]:
        """What was pushed."""
        return [outcome for outcome in self.outcomes if not isinstance(outcome, SpoolerError)]

    @property
    def failures(self) -> list[SpoolerError]:
        """Everything that went wrong, in its order."""
        pushes = [outcome for outcome in self.outcomes if isinstance(outcome, SpoolerError)]
        return [*pushes, *(error for _, error in self.updated if error is not None)]


async def push_round(target: ClusterTarget, items: tuple[Item, ...], flags: PushFlags) -> Round:
    """Push every file, then update the workloads if all went well. SpoolerError before anything was sent."""
    done = Round()
    async with AsyncExitStack() as stack:
        updates = await stack.enter_async_context(updates_of(target, flags)) if flags.workloads else None
        done.outcomes = await _push_all(target, items, flags)
        if updates is not None and not done.failures:
            done.image = updates.pull_reference(done.receipts[0])
            done.updated = await updates.apply(done.image)
    return done


def updates_of(target: ClusterTarget, flags: PushFlags) -> AbstractAsyncContextManager[Updates]:
    """Check the workloads that are to be set."""
    return prepared(
        target,
        flags.workloads,
        namespace=flags.set_namespace,
        timeout_seconds=flags.set_timeout,
        quiet=flags.quiet,
    )


def show(done: Round, *, as_json: bool) -> None:
    """Print the answer of a round; raise the first of what went wrong, when the others have been told."""
    if as_json and done.receipts:
        documents = [receipt.to_json() for receipt in done.receipts]
        if done.updated:
            documents[0]["set"] = [to_json(workload, done.image, error) for workload, error in done.updated]
        say_json(documents[0] if len(done.outcomes) == 1 else documents)
    elif not as_json:
        for image in (image for receipt in done.receipts for image in receipt.images):
            say(image.pull_reference or done.image or str(image.digest))
    for image in (image for receipt in done.receipts for image in receipt.images):
        if image.repacked_from not in (None, image.digest):
            warn(f"{image.reference}: recompressed, so its digest differs from the archive's, {image.repacked_from}")
    for failure in done.failures:
        explain(failure)
    for failure in done.failures[1:]:
        warn(str(failure))
    if done.failures:
        raise done.failures[0]


async def _push_all(target: ClusterTarget, items: tuple[Item, ...], flags: PushFlags) -> list[Receipt | SpoolerError]:
    """Push every file to one pod, or to each; one's failure does not stop the others."""
    targets = [target]
    if flags.all_pods:
        async with target.connect() as client:
            targets = [replace(target, pod=pod) for pod in await client.pods()]
    if len(targets) > 1 and any(item.file == STDIN for item in items):
        raise click.UsageError("standard input can be read for one pod only; save the archive to a file first")
    limiter = anyio.Semaphore(flags.jobs)
    outcomes: dict[tuple[int, int], Receipt | SpoolerError] = {}

    async def one(client: SpoolerClient, at: tuple[int, int], item: Item) -> None:
        async with limiter:
            try:
                outcomes[at] = await _push_one(client, item, flags, shown)
            except SpoolerError as exc:
                outcomes[at] = exc

    with bars(quiet=flags.quiet) as shown:
        async with AsyncExitStack() as stack, task_group() as tasks:
            for pod, chosen in enumerate(targets):
                client = await stack.enter_async_context(chosen.connect(bytes_per_second=flags.rate_limit))
                for number, item in enumerate(items):
                    tasks.start_soon(one, client, (pod, number), item)
    return [outcomes[at] for at in sorted(outcomes)]


@asynccontextmanager
async def opened(item: Item) -> AsyncGenerator[Path | BinaryIO]:
    """What an item is read from; EngineError when an engine cannot save it."""
    if item.image is None:
        yield sys.stdin.buffer if item.file == STDIN else Path(item.file)
        return
    async with item.image.saved() as pipe:
        yield cast("BinaryIO", pipe)


async def _push_one(client: SpoolerClient, item: Item, flags: PushFlags, shown: Bars) -> Receipt:
    from registry_spooler.archive.compression import Compression

    async with shown.push(item.title) as progress, opened(item) as archive:
        return await client.push(
            archive,
            item.reference,
            is_archive=item.is_archive,
            compression=Compression(flags.compression),
            streams=flags.streams,
            delta=flags.delta,
            repack=flags.repack,
            progress=progress,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a push of one item would do; `workloads` would get `image`."""

    plan: PushPlan
    server: str
    namespace: str
    image: str = ""
    workloads: tuple[Workload, ...] = ()

    def lines(self) -> Iterator[str]:
        """For people."""
        for image in self.plan.images:
            replaced = self.plan.replaces[image.reference]
            state = "the tag is new"
            if replaced is not None:
                state = "it is there already" if replaced == image.digest else f"replaces {replaced}"
            yield f"{image.reference}@{image.digest}  ({state})"
            for lacking in image.missing:
                yield f"  left out, neither here nor there: {lacking}"
        count, size = count_text(len(self.plan.send), "blob or manifest", "blobs and manifests"), self.plan.send_bytes
        there = f"{count_text(self.plan.existing_blobs, 'blob')} ({size_text(self.plan.existing_bytes)})"
        yield f"to send: {count}, {size_text(size)}; there already: {there}"
        for digest, size in self.plan.send.items():
            yield f"  {digest}  {size_text(size)}"
        yield f"to: namespace {self.namespace} of {self.server}"
        for workload in self.workloads:
            yield f"to set: {workload.title} in namespace {workload.namespace}, container {workload.container}"

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        document = {**self.plan.to_json(), "server": self.server, "namespace": self.namespace}
        if self.workloads:
            document["set"] = [
                {
                    "workload": workload.title,
                    "namespace": workload.namespace,
                    "container": workload.container,
                    "image": self.image,
                }
                for workload in self.workloads
            ]
        return document


async def plan_round(target: ClusterTarget, items: tuple[Item, ...], flags: PushFlags) -> list[Planned]:
    """Ask what a push would do, and do none of it. SpoolerError."""
    from registry_spooler.archive.compression import Compression

    planned: list[Planned] = []
    async with AsyncExitStack() as stack:
        updates = await stack.enter_async_context(updates_of(target, flags)) if flags.workloads else None
        client = await stack.enter_async_context(target.connect())
        for item in items:
            async with opened(item) as archive:
                plan = await client.plan(
                    archive,
                    item.reference,
                    is_archive=item.is_archive,
                    compression=Compression(flags.compression),
                    repack=flags.repack,
                )
            image = f"{updates.host}/{plan.images[0].reference}@{plan.images[0].digest}" if updates else ""
            planned.append(
                Planned(
                    plan=plan,
                    server=client.server,
                    namespace=client.namespace,
                    image=image,
                    workloads=updates.workloads if updates else (),
                )
            )
    return planned


def show_plans(planned: list[Planned], *, as_json: bool) -> None:
    """Print what would be done."""
    if as_json:
        documents = [each.to_json() for each in planned]
        say_json(documents[0] if len(documents) == 1 else documents)
        return
    for each in planned:
        for line in each.lines():
            say(line)
