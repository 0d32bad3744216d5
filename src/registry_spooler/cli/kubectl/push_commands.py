"""`push` and `publish`: archives and files into the registry, at once or by way of the spool directory."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import anyio
import click

from registry_spooler.aio import task_group
from registry_spooler.cli.bars import Bars, bars
from registry_spooler.cli.kubectl.engines import EngineImage
from registry_spooler.cli.kubectl.target import ClusterTarget, Rate, target_options
from registry_spooler.cli.printing import say, say_json, warn
from registry_spooler.cli.process import run
from registry_spooler.errors import SpoolerError
from registry_spooler.oci.reference import Reference
from registry_spooler.spool.filename import FileName, archive_suffix, published_name
from registry_spooler.text import quoted

if TYPE_CHECKING:
    from registry_spooler.client import Receipt, SpoolerClient


STDIN = "-"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
rate_option = click.option(
    "--rate-limit", type=Rate(), metavar="RATE", help="Send no faster than this: 500k, 2M (bytes per second)."
)


@dataclass(frozen=True, slots=True)
class Item:
    """One file and where its image goes; `reference` is None where the archive says."""

    file: str
    reference: Reference | None
    is_archive: bool | None
    """None: as its content says."""
    image: EngineImage | None = None
    """The image that `file` names, if it names one."""

    @property
    def title(self) -> str:
        """For people."""
        if self.image is not None:
            return f"{self.image.name} → {self.reference}"
        name = "standard input" if self.file == STDIN else Path(self.file).name
        return f"{name} → {self.reference}" if self.reference is not None else name


@dataclass(frozen=True, slots=True, kw_only=True)
class PushFlags:
    """How to push."""

    compression: str
    streams: int
    jobs: int
    rate_limit: float | None
    quiet: bool


@click.command(epilog="Example: kubectl spool push app:v2 catalog/app:v2")
@click.argument("files", metavar="FILE|IMAGE… [NAME]", nargs=-1, required=True)
@click.option("--compression", type=click.Choice(["gzip", "zstd", "none"]), default="gzip", show_default=True)
@click.option(
    "--streams", type=click.IntRange(1, 16), default=3, show_default=True, help="Number of blobs to send at once."
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 16), default=2, show_default=True, help="Number of files to push at once."
)
@click.option("--all-pods", is_flag=True, help="Push to every pod; each has a registry of its own.")
@rate_option
@quiet_option
@json_option
@target_options
def push(target: ClusterTarget, /, files: tuple[str, ...], all_pods: bool, as_json: bool, **flags: Any) -> None:
    """Push image archives, sending only what the registry lacks, and print their digests.

    IMAGE is the name of an image that docker, podman or nerdctl has here: a word that has a tag (app:v2) and does not
    end like an archive, or that begins with an engine's name (podman:app). Every other word is a FILE.

    Of two arguments the second is the NAME, unless it is a file that ends like an archive or is written with a path
    (./app); more than two are all files or images.
    FILE is an archive of `docker save`, `podman save`, `skopeo copy` and others, or `-` for one on standard input; any
    other file becomes an image of one layer. NAME is REPOSITORY[:TAG]; without it the file's name says where the image
    goes, as in the spool directory.
    """
    items = read_items(files)
    chosen = PushFlags(**flags)
    outcomes = run(lambda: _push_all(target, items, chosen, all_pods=all_pods))
    receipts = [outcome for outcome in outcomes if not isinstance(outcome, SpoolerError)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, SpoolerError)]
    if as_json and receipts:
        documents = [receipt.to_json() for receipt in receipts]
        say_json(documents[0] if len(outcomes) == 1 else documents)
    elif not as_json:
        for image in (image for receipt in receipts for image in receipt.images):
            say(image.pull_reference or str(image.digest))
    if failures:
        for failure in failures[1:]:
            warn(str(failure))
        raise failures[0]


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


def read_items(arguments: tuple[str, ...]) -> tuple[Item, ...]:
    """The arguments, understood: of two, the second is a NAME where it does not say that it is a file."""
    if len(arguments) == 2:
        file, name = arguments
        if file != STDIN and EngineImage.parse(file) is None and not Path(file).exists() and Path(name).is_file():
            raise click.UsageError(f"there is no file {quoted(file)}; the FILE comes first: push {name} {file}")
        if not _says_file(name):
            return (_item(file, name),)
    last = arguments[-1]
    if len(arguments) > 1 and last != STDIN and EngineImage.parse(last) is None and not Path(last).exists():
        raise click.UsageError(f"there is no file {quoted(last)}; a NAME goes with a single FILE")
    return tuple(_item(file, None) for file in arguments)


def _says_file(text: str) -> bool:
    """Return whether an argument can only be meant as a file, not as the NAME for the one before it."""
    if text == STDIN or text.startswith(("./", "../", "/", "~")):
        return True
    return Path(text).is_file() and (bool(archive_suffix(text)) or "\\" in text)


def _item(file: str, name: str | None) -> Item:
    image = EngineImage.parse(file)
    if image is not None:
        return Item(file, _named(name) if name is not None else image.reference, True, image)
    if file != STDIN and not Path(file).exists():
        raise click.UsageError(f"there is no file {quoted(file)}")
    is_archive = True if file == STDIN or archive_suffix(file) else None
    if name is not None:
        return Item(file, _named(name), is_archive)
    if file == STDIN:
        raise click.UsageError("an archive on standard input needs a NAME: kubectl spool push - REPOSITORY[:TAG]")
    return Item(file, FileName.parse(Path(file).name).reference, is_archive)


def _named(name: str) -> Reference:
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise click.UsageError("a digest cannot be chosen; push to a tag")
    return reference


async def _push_all(
    target: ClusterTarget, items: tuple[Item, ...], flags: PushFlags, *, all_pods: bool
) -> list[Receipt | SpoolerError]:
    """Push every file to one pod, or to each; one's failure does not stop the others."""
    targets = [target]
    if all_pods:
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


async def _push_one(client: SpoolerClient, item: Item, flags: PushFlags, shown: Bars) -> Receipt:
    from registry_spooler.archive.compression import Compression

    async with shown.push(item.title) as progress, AsyncExitStack() as stack:
        archive: Path | BinaryIO = sys.stdin.buffer if item.file == STDIN else Path(item.file)
        if item.image is not None:
            archive = cast("BinaryIO", await stack.enter_async_context(item.image.saved()))
        return await client.push(
            archive,
            item.reference,
            is_archive=item.is_archive,
            compression=Compression(flags.compression),
            streams=flags.streams,
            progress=progress,
        )
