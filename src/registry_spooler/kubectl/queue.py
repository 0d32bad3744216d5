"""`status`, `failed`, `retry`, `logs`: what the spooler does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import click

from registry_spooler.kube.document import Document
from registry_spooler.kubectl.output import say, say_json, warn
from registry_spooler.kubectl.pushing import json_option
from registry_spooler.kubectl.target import Target, run, target_options
from registry_spooler.kubectl.view import status_lines, status_view

if TYPE_CHECKING:
    from registry_spooler.client import SpoolerClient

WATCH_SECONDS = 2.0


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Stay, and show it as it changes.")
@json_option
@target_options
def status(target: Target, watch: bool, as_json: bool) -> None:
    """Show what waits, runs, was put off, failed and is done."""

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
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@target_options
def retry(target: Target, names: tuple[str, ...]) -> None:
    """Put failed files back into the spool directory."""

    async def work() -> None:
        async with target.connect() as client:
            for name in names:
                await client.retry(name)
                say(name)

    run(work)


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
