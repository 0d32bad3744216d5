"""`push --dry-run`: what would be sent, how much of it, and to where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry_spooler.cli.kubectl.pushing.arguments import Item
from registry_spooler.cli.kubectl.pushing.rounds import PushFlags, opened, updates_of
from registry_spooler.cli.kubectl.target import ClusterTarget
from registry_spooler.cli.printing import say, say_json
from registry_spooler.text import count_text, size_text

if TYPE_CHECKING:
    from registry_spooler.kubernetes.objects.workloads import Workload
    from registry_spooler.kubernetes.transfer.dry_run import PushPlan


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
