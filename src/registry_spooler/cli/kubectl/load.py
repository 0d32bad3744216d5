"""`load`: image archives into the nodes' own stores, with no registry at all."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry_spooler.cli.bars import bars
from registry_spooler.cli.kubectl import completing
from registry_spooler.cli.kubectl.pushing.engines import EngineImage
from registry_spooler.cli.kubectl.target import ClusterTarget, quiet_option, target_options
from registry_spooler.cli.printing import say
from registry_spooler.cli.process import run

if TYPE_CHECKING:
    from registry_spooler.kubernetes.api import Cluster
    from registry_spooler.kubernetes.objects.nodes import Node
    from registry_spooler.kubernetes.transfer.node_archive import LocalLayout


@click.command()
@click.argument("images", metavar="FILE|IMAGE...", nargs=-1, required=True, shell_complete=completing.images_and_files)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Node to load the images into; may be repeated.")
@click.option("--all-nodes", is_flag=True, help="Load the images into every node.")
@click.option("--socket", default="", metavar="PATH", help="Path of containerd's socket on the node, if unusual.")
@quiet_option
@target_options
def load(
    target: ClusterTarget, images: tuple[str, ...], nodes: tuple[str, ...], all_nodes: bool, socket: str, quiet: bool
) -> None:
    """Load images into the nodes' own stores, with no registry at all.

    FILE is an archive; all its images are loaded. IMAGE is the name of an image that docker, podman or nerdctl has
    here: a word that has a tag (`app:v1`), or an engine's prefix (`podman:app`). Pods then find the image by its
    full name if they have `imagePullPolicy: IfNotPresent` or `Never`.

    A pod on the node does it for as long as it takes: privileged, made of an image that the node has, with the
    node's own programs. That needs the right to list nodes, and to create, get, delete and exec into pods in a
    namespace that allows privileged ones (-n). Where this is not allowed, what to type on the node is printed.
    """
    if nodes and all_nodes:
        raise click.UsageError("--node and --all-nodes exclude each other")

    for name in load_images(target, images, nodes=nodes, all_nodes=all_nodes, socket=socket, quiet=quiet):
        say(name)


def load_images(
    target: ClusterTarget,
    images: tuple[str, ...],
    *,
    nodes: tuple[str, ...] = (),
    all_nodes: bool = False,
    socket: str = "",
    quiet: bool = False,
) -> list[str]:
    """Load what the arguments mean into nodes; return the images' full names."""

    async def work() -> list[str]:
        from registry_spooler.kubernetes.api import Cluster
        from registry_spooler.kubernetes.config import log_in
        from registry_spooler.kubernetes.transfer.node_archive import LocalLayout

        login = await log_in(kubeconfig=target.kubeconfig, context=target.context, namespace=target.namespace)
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(Cluster(login))
            chosen = await choose_nodes(cluster, nodes, all_nodes=all_nodes)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kubectl-spool-")))
            layout = await stack.enter_async_context(LocalLayout(folder))
            names = [name for image in images for name in await read_image(layout, image)]
            await load_into(cluster, chosen, layout, socket=socket, quiet=quiet)
            return names

    return run(work)


def names_in(archive: Path) -> list[str]:
    """Return the full names of an archive's images. ArchiveError."""

    async def work() -> list[str]:
        from registry_spooler.kubernetes.transfer.node_archive import archive_names
        from registry_spooler.kubernetes.transfer.send import open_source

        async with open_source(archive) as source:
            return await archive_names(source)

    return run(work)


async def choose_nodes(cluster: Cluster, names: tuple[str, ...], *, all_nodes: bool) -> list[Node]:
    """Return the nodes that are meant; with no name given, the one that there is. click.UsageError otherwise."""
    from registry_spooler.kubernetes.objects.nodes import list_nodes

    found = {node.name: node for node in await list_nodes(cluster)}
    if unknown := [name for name in names if name not in found]:
        raise click.UsageError(f"the cluster has no node {unknown[0]!r}, but {', '.join(found)}")
    if not names and not all_nodes and len(found) > 1:
        raise click.UsageError(f"choose nodes with --all-nodes or --node; the cluster has {', '.join(found)}")
    return [found[name] for name in names] if names else list(found.values())


async def read_image(layout: LocalLayout, word: str) -> tuple[str, ...]:
    """Take the images that an argument means; return their full names. ArchiveError, EngineError."""
    from registry_spooler.kubernetes.transfer.send import open_source
    from registry_spooler.progress import Progress

    image = EngineImage.parse(word)
    if image is None:
        async with open_source(Path(word)) as source:
            return await layout.add(source, None, Progress())
    async with image.saved() as pipe, open_source(pipe) as source:  # type: ignore[arg-type] # IO[bytes] is a BinaryIO
        return await layout.add(source, image.name, Progress())


async def load_into(cluster: Cluster, nodes: list[Node], layout: LocalLayout, *, socket: str, quiet: bool) -> None:
    """Import everything that was read into each node, one after the other, and show how far it is."""
    from registry_spooler.kubernetes.objects.nodes import import_images

    with bars(quiet=quiet) as shown:
        for node in nodes:
            async with shown.transfer(f"node {node.name}") as on_sent:
                await import_images(cluster, node, layout.archive(), socket=socket, on_sent=on_sent)
