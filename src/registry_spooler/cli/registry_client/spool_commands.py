"""The commands about the spool directory: `deposit`, `status`, `failed`, `retry`, `discard`, `wait`.

They are plain blocking code: each does one thing, and a signal ends it between two system calls.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from registry_spooler.aio import in_thread
from registry_spooler.cli.printing import say, say_json
from registry_spooler.cli.process import ExitCode, NotHere
from registry_spooler.cli.registry_client import spool_files as queue
from registry_spooler.cli.registry_client.connection import Context, with_context
from registry_spooler.cli.registry_client.deposit import Deposit
from registry_spooler.cli.registry_options import SPOOL_SIZE, option
from registry_spooler.errors import SpoolerError
from registry_spooler.text import count_text, quoted

if TYPE_CHECKING:
    from registry_spooler.cli.registry_client.wait import WaitOutcome


directory_option = click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("/spool"),
    show_default=True,
    envvar=["REGISTRY_CLIENT_DIRECTORY", "REGISTRY_SPOOLER_DIRECTORY", "REGISTRY_SPOOLER_directory"],
    help="The spool directory.",
)
port_option = click.option(
    "--health-port",
    type=int,
    default=8086,
    show_default=True,
    envvar=["REGISTRY_CLIENT_HEALTH_PORT", "REGISTRY_SPOOLER_HEALTH_PORT", "REGISTRY_SPOOLER_health_port"],
    help="The spooler's health port.",
)
address_option = click.option(
    "--health-address",
    default="",
    envvar=["REGISTRY_CLIENT_HEALTH_ADDRESS", "REGISTRY_SPOOLER_HEALTH_ADDRESS", "REGISTRY_SPOOLER_health_address"],
    help="Address on which the spooler listens (default: all).",
)

limit_option = option(
    ("REGISTRY_CLIENT", "REGISTRY_SPOOLER"),
    "--spool-limit",
    "spool_limit_bytes",
    type=SPOOL_SIZE,
    metavar="SIZE",
    help="Most that the spool directory may hold.",
)


@click.command()
@directory_option
@click.option("--probe", is_flag=True, help="Print how much of the file has arrived.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Write from this byte on.")
@click.option("--finish", metavar="SHA256", help="Check the file against this SHA-256 and hand it to the spooler.")
@click.option("--arrived", type=click.IntRange(min=0), help="The size that --probe printed, if there was one.")
@click.option("--size", type=click.IntRange(min=0), default=0, help="Size of the whole file in bytes.")
@limit_option
@click.argument("name")
@with_context
def deposit(
    context: Context,
    directory: Path,
    probe: bool,
    offset: int,
    finish: str | None,
    arrived: int | None,
    size: int,
    spool_limit_bytes: int | None,
    name: str,
) -> None:
    """Write standard input into the spool directory as NAME~; rename it to NAME with --finish.

    A program's command: `kubectl spool publish` calls it. It can be made again after a cut, from the byte where
    that ended.
    """
    file = Deposit(directory, name, spool_limit_bytes)
    if probe:
        say_json(file.probe(size))
    elif finish is not None:
        say_json(file.finish(size, finish))
    else:
        with context.reading() as read:
            say_json(file.append(read, offset, arrived=arrived, size=size))


@click.command()
@port_option
@address_option
def status(health_port: int, health_address: str) -> None:
    """Print the spooler's status as JSON."""
    say_json(queue.read_status(health_port, health_address))


@click.command()
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def failed(directory: Path, as_json: bool) -> None:
    """List the files that failed, and why."""
    records = queue.list_failed(directory)
    if as_json:
        say_json(records)
        return
    for record in records:
        say(f"{record['name']}: {record.get('error')}")


@click.command()
@directory_option
@click.option("--as", "new_name", metavar="NEWNAME", help="New name, or REPO[:TAG], if the old one was wrong.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
def retry(directory: Path, new_name: str | None, names: tuple[str, ...]) -> None:
    """Put failed files back into the spool directory."""
    if new_name is not None and len(names) > 1:
        raise click.UsageError("--as takes a single NAME")
    for name in names:
        say(queue.retry(directory, name, new_name))


@click.command()
@directory_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
def discard(directory: Path, yes: bool, names: tuple[str, ...]) -> None:
    """Remove failed files for good, with the records of why they failed."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("refusing to remove files without asking; add --yes")
    if not yes and not click.confirm(f"Remove {count_text(len(names), 'failed file')} for good?", err=True):
        raise click.exceptions.Exit(ExitCode.FAILED)
    for name in names:
        queue.discard(directory, name)
        say(name)


class FileFailed(SpoolerError):
    """The spooler could not do what the file asks for."""

    name: str
    reason: str
    sentence = "{name!q} failed: {reason}"


class NotInSpool(NotHere):
    """No file of that name waits, and none was done or has failed."""

    path: Path
    reason: str
    sentence = "{path!q}: {reason}"


class StillWaiting(SpoolerError):
    """`--timeout` was too short."""

    name: str
    seconds: float
    temporary = True
    sentence = "{name!q} is neither done nor failed after {seconds:g} seconds; `status` tells why"


class _Moment(click.ParamType[datetime]):
    """An RFC 3339 time; without an offset it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{quoted(str(value))} is not a time like 2026-01-31T12:00:00Z", param, context)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.command()
@directory_option
@click.option("--since", type=_Moment(), metavar="TIME", help="Ignore outcomes from before this time (RFC 3339).")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after this long (default: never)."
)
@click.option("--json", is_flag=True, expose_value=False, help="Accepted for symmetry: the record is always JSON.")
@click.argument("name")
@with_context
def wait(context: Context, directory: Path, since: datetime | None, timeout: float | None, name: str) -> None:
    """Wait until the spool file NAME is done or has failed, and print its record as JSON.

    The exit code is 0 when it is done, 1 when it has failed, and 3 when there is no such file.
    """
    path = directory / name  # NAME may be a path of its own: /spool/hello.txt
    outcome = context.run(lambda: _wait(path.parent, path.name, since, timeout))
    say_json(outcome.record)
    if not outcome.done:
        raise FileFailed(path.name, str(outcome.record.get("error") or "there is no record of why"))


async def _wait(directory: Path, name: str, since: datetime | None, seconds: float | None) -> WaitOutcome:
    # The watch of the spool is for Linux alone; other commands do without.
    from registry_spooler.cli.registry_client.wait import FileNotInSpool, wait_for_outcome

    try:
        with anyio.fail_after(seconds):
            outcome = await wait_for_outcome(directory, name)
    except FileNotInSpool as exc:
        if await in_thread(directory.is_dir):
            raise NotInSpool(directory / name, exc.reason) from exc
        raise NotInSpool(directory / name, "there is no such directory; choose the spool's with -d") from exc
    except TimeoutError as exc:
        raise StillWaiting(name, seconds or 0.0) from exc
    # Records count in milliseconds, and an outcome may well come within one.
    if since is not None and _moment_of(outcome) < since - timedelta(milliseconds=1):
        raise NotInSpool(directory / name, f"its last outcome is from before {since.isoformat()}")
    return outcome


def _moment_of(outcome: WaitOutcome) -> datetime:
    """When it was done or failed; the beginning of time for a record that does not tell."""
    try:
        return datetime.fromisoformat(str(outcome.record["finished" if outcome.done else "time"]))
    except (KeyError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
