"""`push` and `publish`: archives and files into the registry, at once or by way of the spool directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_spooler.cli.bars import bars
from registry_spooler.cli.kubectl import completing
from registry_spooler.cli.kubectl.load import names_in
from registry_spooler.cli.kubectl.pushing.arguments import read_items, tagged_item
from registry_spooler.cli.kubectl.pushing.rounds import PushFlags, plan_round, push_round, show, show_plans
from registry_spooler.cli.kubectl.pushing.watching import check_watchable, watch
from registry_spooler.cli.kubectl.pushing.workload_updates import WorkloadType
from registry_spooler.cli.kubectl.target import (
    ClusterTarget,
    json_option,
    quiet_option,
    rate_option,
    target_options,
)
from registry_spooler.cli.printing import say, say_json
from registry_spooler.cli.process import run
from registry_spooler.spool.filename import published_name

if TYPE_CHECKING:
    from registry_spooler.client import Receipt


@click.command(epilog="Example: kubectl spool push app:v2 catalog/app:v2")
@click.argument(
    "files", metavar="FILE|IMAGE… [NAME]", nargs=-1, required=True, shell_complete=completing.images_and_files
)
@click.option("--compression", type=click.Choice(["gzip", "zstd", "none"]), default="gzip", show_default=True)
@click.option(
    "--streams", type=click.IntRange(1, 16), default=3, show_default=True, help="Number of blobs to send at once."
)
@click.option(
    "--delta",
    type=click.Choice(["auto", "never", "always"]),
    default="auto",
    show_default=True,
    help="Send only what is new in layers that are compressed here (auto: where it saves half on a slow link).",
)
@click.option(
    "--repack",
    is_flag=True,
    help="Recompress the layers of an OCI archive, so that only what is new in them is sent; the image gets a new "
    "digest.",
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 16), default=2, show_default=True, help="Number of files to push at once."
)
@click.option("--all-pods", is_flag=True, help="Push to every pod; each has a registry of its own.")
@click.option(
    "--set",
    "workloads",
    type=WorkloadType(),
    multiple=True,
    shell_complete=completing.workloads,
    metavar="KIND/NAME[:CONTAINER]",
    help="Workload that gets the image once it is pushed, or [KIND/]LABEL=VALUE[:CONTAINER] for all whose pods have "
    "that label; may be repeated.",
)
@click.option("--set-namespace", metavar="NAMESPACE", help="Namespace of the workloads (default: the spooler's).")
@click.option(
    "--set-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=600,
    show_default=True,
    help="Give up waiting for a rollout after this long.",
)
@click.option("--tag-only", is_flag=True, help="NAME is a tag alone; the image's own name gives the repository.")
@click.option(
    "-w", "--watch", "watches", is_flag=True, help="Push again whenever a FILE or IMAGE changes, until Ctrl-C."
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and how much of it, and send nothing.")
@rate_option
@quiet_option
@json_option
@target_options
def push(
    target: ClusterTarget,
    /,
    files: tuple[str, ...],
    watches: bool,
    dry_run: bool,
    as_json: bool,
    tag_only: bool,
    **flags: Any,
) -> None:
    """Push image archives, sending only what the registry lacks, and print their digests.

    IMAGE is the name of an image that docker, podman or nerdctl has here: a word that has a tag (app:v2) and does not
    end like an archive, or that begins with an engine's name (podman:app). Every other word is a FILE.

    Of two arguments the second is the NAME, unless it is a file that ends like an archive or is written with a path
    (./app); more than two are all files or images.
    FILE is an archive of `docker save`, `podman save`, `skopeo copy` and others, or `-` for one on standard input; any
    other file becomes an image of one layer. NAME is REPOSITORY[:TAG]; without it the file's name says where the image
    goes, as in the spool directory.

    With --set, workloads get the image's pull reference with its digest once it is in the registry, and their rollouts
    are waited for; the exit code is 1 if one does not come up, and what its pods and the cluster say of it is printed.
    Workloads, containers and the right to patch them are checked before anything is sent.
    """
    items = (tagged_item(files, names_in),) if tag_only else read_items(files)
    chosen = PushFlags(**flags)
    if chosen.workloads and (len(items) > 1 or items[0].reference is None):
        raise click.UsageError("--set goes with a single FILE or IMAGE that is one image")
    if chosen.repack and chosen.compression == "none":
        raise click.UsageError("--repack and --compression none exclude each other")
    if dry_run and watches:
        raise click.UsageError("--dry-run and --watch exclude each other")
    if dry_run:
        show_plans(run(lambda: plan_round(target, items, chosen)), as_json=as_json)
        return
    if watches:
        check_watchable(items)

        async def again() -> None:
            show(await push_round(target, items, chosen), as_json=as_json)

        run(lambda: watch(items, again))
        return
    show(run(lambda: push_round(target, items, chosen)), as_json=as_json)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("name", required=False)
@click.option("--wait", is_flag=True, help="Wait until the image is in the registry, and print its digest.")
@rate_option
@quiet_option
@json_option
@target_options
def publish(
    target: ClusterTarget,
    file: Path,
    name: str | None,
    wait: bool,
    rate_limit: float | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Put a file into the spool directory; the spooler pushes it when its turn comes.

    NAME is the file's name there, or REPOSITORY[:TAG]; it gets the FILE's ending (.tar, .tgz, …) if it has none. A
    broken connection is dialled again, and goes on where it broke.
    """
    spooled = published_name(file.name, name)

    async def work() -> tuple[str, Receipt | None]:
        async with target.connect(bytes_per_second=rate_limit) as client:
            with bars(quiet=quiet) as shown:
                async with shown.transfer(f"{file.name} → {spooled}") as told:
                    published = await client.publish(file, spooled, on_sent=told)
                return published.name, await client.wait(published) if wait else None

    published, receipt = run(work)
    if receipt is None:
        say_json({"file": published}) if as_json else say(published)
    else:
        say_json({"file": published, **receipt.to_json()}) if as_json else say(
            receipt.images[0].pull_reference or str(receipt.digest)
        )
