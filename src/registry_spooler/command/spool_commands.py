"""The commands about the spool directory beside us: `deposit`, `status`, `failed`, `retry`, `discard`.

They are plain blocking code: each does one thing, and a signal ends it between two system calls.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from registry_spooler.command import queue
from registry_spooler.command.deposit import Deposit
from registry_spooler.command.ending import ExitCode
from registry_spooler.command.printing import say, say_json
from registry_spooler.options import SPOOL_SIZE, option
from registry_spooler.text import count_text

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
    help="The port at which the spooler beside us answers.",
)
address_option = click.option(
    "--health-address",
    default="",
    envvar=["REGISTRY_CLIENT_HEALTH_ADDRESS", "REGISTRY_SPOOLER_HEALTH_ADDRESS", "REGISTRY_SPOOLER_health_address"],
    help="The address at which it listens, if not at all of them.",
)

limit_option = option(
    ("REGISTRY_CLIENT", "REGISTRY_SPOOLER"),
    "--spool-limit",
    "spool_limit_bytes",
    type=SPOOL_SIZE,
    metavar="SIZE",
    help="What the spool directory may hold.",
)


@click.command()
@directory_option
@click.option("--probe", is_flag=True, help="Say how much of it has arrived.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Write from here on, in bytes.")
@click.option("--finish", metavar="SHA256", help="Compare with this checksum, and hand the file to the spooler.")
@click.option("--arrived", type=click.IntRange(min=0), help="What --probe said of its size, if it was there.")
@click.option("--size", type=click.IntRange(min=0), default=0, help="The number of bytes in all.")
@limit_option
@click.argument("name")
def deposit(
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
        say_json(file.append(sys.stdin.fileno(), offset, arrived=arrived, size=size))


@click.command()
@port_option
@address_option
def status(health_port: int, health_address: str) -> None:
    """Print what the spooler beside us says of itself, as JSON."""
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
@click.option("--as", "new_name", metavar="NEWNAME", help="Its new name, or REPO[:TAG]; for one that was wrong.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
def retry(directory: Path, new_name: str | None, names: tuple[str, ...]) -> None:
    """Put failed files back into the spool directory."""
    if new_name is not None and len(names) > 1:
        raise click.UsageError("--as is for one NAME alone")
    for name in names:
        say(queue.retry(directory, name, new_name))


@click.command()
@directory_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
def discard(directory: Path, yes: bool, names: tuple[str, ...]) -> None:
    """Remove failed files for good, with the records of why they failed."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at; add --yes to remove the files for good")
    if not yes and not click.confirm(f"Remove {count_text(len(names), 'failed file')} for good?", err=True):
        raise click.exceptions.Exit(ExitCode.FAILED)
    for name in names:
        queue.discard(directory, name)
        say(name)
