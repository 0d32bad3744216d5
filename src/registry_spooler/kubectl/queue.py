"""`status`, `failed`, `retry`, `discard`, `wait`, `logs`: what the spooler does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import click

from registry_spooler.kube.document import Document
from registry_spooler.kubectl.output import FAILED, say, say_json, warn
from registry_spooler.kubectl.pushing import json_option
from registry_spooler.kubectl.target import Target, run, target_options
from registry_spooler.kubectl.view import status_lines, status_view
from registry_spooler.text import count_text

if TYPE_CHECKING:
    from registry_spooler.client import Receipt, SpoolerClient

WATCH_SECONDS = 2.0


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Stay, and show it as it changes.")
@json_option
@target_options
def status(target: Target, watch: bool, as_json: bool) -> None:
    """Show what waits, runs, is deferred, failed and is done."""

    async def work() -> None:
        async with target.connect() as client:
            if watch:
                await (_watch_live(client) if sys.stdout.isatty() and not as_json else _watch_lines(client, as_json))
            else:
                _print_status(await client.status(), as_json)

    run(work)


@click.command()
@json_option
@target_options
def failed(target: Target, as_json: bool) -> None:
    """List the files that failed, and why."""

    async def work() -> tuple[dict[str, Any], ...]:
        async with target.connect() as client:
            return await client.failed()

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
@click.option("--as", "new_name", metavar="NEWNAME", help="Its new name, or REPOSITORY[:TAG]; for one that was wrong.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@target_options
def retry(target: Target, names: tuple[str, ...], new_name: str | None) -> None:
    """Put failed files back into the spool directory."""
    if new_name is not None and len(names) > 1:
        raise click.UsageError("--as is for one NAME alone")

    async def work() -> None:
        async with target.connect() as client:
            for name in names:
                await client.retry(name, new_name)
                say(new_name or name)

    run(work)


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@target_options
def discard(target: Target, names: tuple[str, ...], yes: bool) -> None:
    """Remove failed files for good, with the records of why they failed."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; add --yes to remove the files for good")
    if not yes and not click.confirm(f"Remove {count_text(len(names), 'failed file')} for good?", err=True):
        raise click.exceptions.Exit(FAILED)

    async def work() -> None:
        async with target.connect() as client:
            for name in names:
                await client.discard(name)
                say(name)

    run(work)


@click.command()
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer; for ever otherwise.")
@click.argument("name")
@json_option
@target_options
def wait(target: Target, name: str, timeout: float | None, as_json: bool) -> None:
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
@click.option("-f", "--follow", is_flag=True, help="Stay, and print what comes.")
@click.option("--tail", type=click.IntRange(min=0), default=100, show_default=True, help="How many of the last lines.")
@target_options
def logs(target: Target, follow: bool, tail: int) -> None:
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
        _print_status(await client.status(), as_json)
        await anyio.sleep(WATCH_SECONDS)


async def _watch_live(client: SpoolerClient) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        while True:
            live.update(status_view(await client.status()), refresh=True)
            await anyio.sleep(WATCH_SECONDS)
