"""The commands about the spool directory beside us: `deposit`, `status`, `failed`, `retry`.

They are plain blocking code: each does one thing, and a signal ends it between two system calls.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from registry_spooler.command import queue
from registry_spooler.command.deposit import Deposit
from registry_spooler.command.printing import say, say_json

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


@click.command()
@directory_option
@click.option("--probe", is_flag=True, help="Say how much of it has arrived.")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Write from here on, in bytes.")
@click.option("--finish", metavar="SHA256", help="Compare with this checksum, and hand the file to the spooler.")
@click.option("--arrived", type=click.IntRange(min=0), help="What --probe said of its size, if it was there.")
@click.option("--size", type=click.IntRange(min=0), default=0, help="The number of bytes in all.")
@click.argument("name")
def deposit(
    directory: Path, probe: bool, offset: int, finish: str | None, arrived: int | None, size: int, name: str
) -> None:
    """Write standard input into the spool directory as NAME~; rename it to NAME with --finish.

    A program's command: `kubectl spool publish` calls it. It can be made again after a cut, from the byte where
    that ended.
    """
    file = Deposit(directory, name)
    if probe:
        say_json(file.probe())
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
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
def retry(directory: Path, names: tuple[str, ...]) -> None:
    """Put failed files back into the spool directory."""
    for name in names:
        queue.retry(directory, name)
        say(name)
