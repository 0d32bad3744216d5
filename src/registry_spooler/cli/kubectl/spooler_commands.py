"""`status`, `failed`, `retry`, `discard`, `wait`, `logs`: what the spooler does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from registry_spooler.cli.kubectl.target import ClusterTarget, json_option, target_options
from registry_spooler.cli.printing import say, say_json, warn
from registry_spooler.cli.process import ExitCode, run
from registry_spooler.kubernetes.wire import Document
from registry_spooler.text import count_text, duration_text, printable, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from registry_spooler.client import Receipt, SpoolerClient


SHOWN: Final = 10
"""Files of each kind; the counts are always whole."""

Row = tuple[str, str, str]
"""State, file, and what there is to say of it; harmless to a terminal."""


def status_lines(document: dict[str, Any]) -> Iterator[str]:
    """One line of numbers, one for each trouble, one a file; UnreadableAnswer when it is no status."""
    yield headline(document)
    yield from (f"trouble: {text}" for text in troubles(document))
    yield from (f"{state:<8}  {name}  {said}".rstrip() for state, name, said in rows(document))


def status_view(document: dict[str, Any]) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colours = {"running": "cyan", "waiting": "", "deferred": "yellow", "failed": "red", "done": "green"}
    table = Table(expand=True)
    for title in ("", "file", ""):
        table.add_column(title, overflow="fold")
    for state, name, said in rows(document):
        table.add_row(Text(state, colours[state]), Text(name), Text(said))
    lines = [Text(headline(document), "bold"), *(Text(text, "red") for text in troubles(document))]
    return Group(*lines, table)


def headline(document: dict[str, Any]) -> str:
    """The numbers."""
    status = Document(document, "status")
    queue, registry = status["queue"], status["registry"]
    state = "up" if registry["up"].value else "down"
    counts = ", ".join(f"{queue[name].count()} {name}" for name in ("running", "waiting", "deferred"))
    address = printable(registry["address"].text())
    numbers = f"registry {address} {state}; {counts}, {status['spool']['failed_files'].count()} failed"
    remote = status["remote"]
    if remote.value is None:  # a spooler of an earlier version
        return numbers
    return f"{numbers}; from outside: " + ", ".join(f"{remote[name].count()} {name}" for name in ("running", "waiting"))


def troubles(document: dict[str, Any]) -> list[str]:
    """The checks that fail."""
    checks = Document(document, "status")["checks"]
    return [
        printable(f"{name}: {checks[name]['detail'].text_or_none() or 'failing'}")
        for name in checks.fields()
        if checks[name]["state"].text() != "ok"
    ]


def rows(document: dict[str, Any]) -> Iterator[Row]:
    """A row for each file, and each transfer from outside: what runs first, what is done last."""
    status = Document(document, "status")
    for state, name, said in _rows(status):
        yield state, printable(name), printable(said)


def _rows(status: Document) -> Iterator[Row]:
    remote = status["remote"] if status["remote"].value is not None else _NO_REMOTE
    for job in _first(status["running"]):
        yield "running", job["file"].text(), _running(job, job["action"].text())
    yield from sorted(map(_transfer, _first(remote["transfers"])))
    for file in _first(status["waiting"]):
        behind = f", behind {file['behind'].text()}" if file["behind"].value else ""
        yield "waiting", file["file"].text(), f"for {duration_text(file['seconds'].number())}{behind}"
    for file in _first(status["deferred"]):
        yield "deferred", file["file"].text(), f"{_next_try(file)}: {file['error'].text_or_none()}"
    for record in _first(status["failures"]):
        yield "failed", record["file"].text(), record["error"].text_or_none()
    for record in _first(status["receipts"]):
        yield "done", record["file"].text(), record["digest"].text_or_none()
    for image in _first(remote["pushed"]):
        yield "done", image["reference"].text(), f"{image['digest'].text_or_none()} from outside"


def _transfer(transfer: Document) -> Row:
    command, name = f"{transfer['command'].text()} from outside", transfer["reference"].text_or_none()
    if transfer["ahead"].value is None:
        return "running", name, _running(transfer, command)
    return "waiting", name, f"{command}, behind {count_text(transfer['ahead'].count(), 'other')}"


_NO_REMOTE: Final = Document({"transfers": [], "pushed": []}, "status.remote")
"""Of a spooler of an earlier version."""


def _first(files: Document) -> Iterator[Document]:
    return islice(files.entries(), SHOWN)


def _next_try(file: Document) -> str:
    seconds = file["next_try_in_seconds"].number()
    return f"next try in {duration_text(seconds)}" if seconds >= 1 else "next try now"


def _running(job: Document, action: str) -> str:
    total, bytes_done = job["bytes_total"].count(), job["bytes_done"].count()
    done = f"{min(100, 100 * bytes_done // total)} % of {size_text(total)}" if total else size_text(bytes_done)
    sent = size_text(job["bytes_sent"].number())
    return f"{action}, {done}, {sent} sent, {duration_text(job['seconds'].number())}"


WATCH_SECONDS = 2.0


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Keep showing the status as it changes.")
@json_option
@target_options
def status(target: ClusterTarget, watch: bool, as_json: bool) -> None:
    """Show which files and transfers from outside wait, run, are deferred, failed or are done."""

    async def work() -> None:
        async with target.connect() as client:
            if watch:
                await (_watch_live(client) if sys.stdout.isatty() and not as_json else _watch_lines(client, as_json))
            else:
                _print_status((await client.status()).document, as_json)

    run(work)


@click.command()
@json_option
@target_options
def failed(target: ClusterTarget, as_json: bool) -> None:
    """List the files that failed, and why."""

    async def work() -> tuple[dict[str, Any], ...]:
        async with target.connect() as client:
            return tuple(file.document for file in await client.failed())

    records = run(work)
    if as_json:
        say_json(records)
        return
    for record in records:
        entry = Document(record, "failed")
        say(entry["name"].text(), entry["time"].text_or_none(), entry["error"].text_or_none())
    if records:
        warn(
            "fix the cause, then `kubectl spool retry NAME`, or with `--as NEWNAME` when the name was wrong; "
            "`kubectl spool discard NAME` gives a file up"
        )


@click.command()
@click.option("--as", "new_name", metavar="NEWNAME", help="New name, or REPOSITORY[:TAG], if the old one was wrong.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@target_options
def retry(target: ClusterTarget, names: tuple[str, ...], new_name: str | None) -> None:
    """Put failed files back into the spool directory."""
    if new_name is not None and len(names) > 1:
        raise click.UsageError("--as takes a single NAME")

    async def work() -> None:
        async with target.connect() as client:
            for name in names:
                await client.retry(name, new_name)
                say(new_name or name)

    run(work)


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@target_options
def discard(target: ClusterTarget, names: tuple[str, ...], yes: bool) -> None:
    """Remove failed files for good, with the records of why they failed."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("refusing to remove files without asking; add --yes")
    if not yes and not click.confirm(f"Remove {count_text(len(names), 'failed file')} for good?", err=True):
        raise click.exceptions.Exit(ExitCode.FAILED)

    async def work() -> None:
        async with target.connect() as client:
            for name in names:
                await client.discard(name)
                say(name)

    run(work)


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after this long (default: never)."
)
@click.argument("name")
@json_option
@target_options
def wait(target: ClusterTarget, name: str, timeout: float | None, as_json: bool) -> None:
    """Wait until the spool file NAME is done, and print its digest.

    The exit code is 1 when it has failed or is not done in time, and 3 when there is no such file.
    """

    async def work() -> Receipt:
        async with target.connect() as client:
            return await client.wait(name, timeout_seconds=timeout)

    receipt = run(work)
    if as_json:
        say_json({"file": name, **receipt.to_json()})
        return
    for image in receipt.images:
        say(str(image.digest or "nothing to delete"))


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines as they come.")
@click.option(
    "--tail", type=click.IntRange(min=0), default=100, show_default=True, help="Number of lines to print from the end."
)
@target_options
def logs(target: ClusterTarget, follow: bool, tail: int) -> None:
    """Print the spooler's log."""

    async def work() -> None:
        async with target.connect() as client:
            async for line in client.logs(follow=follow, lines=tail):
                say(line)

    run(work)


def _print_status(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(document)
        return
    for line in status_lines(document):
        say(line)


async def _watch_lines(client: SpoolerClient, as_json: bool) -> None:
    while True:
        _print_status((await client.status()).document, as_json)
        await anyio.sleep(WATCH_SECONDS)


async def _watch_live(client: SpoolerClient) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        while True:
            live.update(status_view((await client.status()).document), refresh=True)
            await anyio.sleep(WATCH_SECONDS)
