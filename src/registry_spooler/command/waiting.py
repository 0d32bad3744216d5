"""`wait`: until a spool file is done or has failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from registry_spooler.command.caller import Caller, called
from registry_spooler.command.ending import NotHere
from registry_spooler.command.printing import say_json
from registry_spooler.command.spool_commands import directory_option
from registry_spooler.errors import SpoolerError
from registry_spooler.text import quoted
from registry_spooler.threads import in_thread

if TYPE_CHECKING:
    from registry_spooler.spool import WaitOutcome


class FileFailed(SpoolerError):
    """The spooler could not do what the file asks for."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{quoted(self.name)} failed: {self.reason}"


class NotInSpool(NotHere):
    """No file of that name waits, and none was done or has failed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{quoted(str(self.path))}: {self.reason}"


class StillWaiting(SpoolerError):
    """`--timeout` was too short."""

    temporary = True

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name, seconds)
        self.name = name
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{quoted(self.name)} is neither done nor failed after {self.seconds:g} seconds; `status` tells why"


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
@click.option("--since", type=_Moment(), metavar="TIME", help="Outcomes from before do not count (RFC 3339).")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer; for ever otherwise.")
@click.option("--json", is_flag=True, expose_value=False, help="The record is JSON with and without it.")
@click.argument("name")
@called
def wait(caller: Caller, directory: Path, since: datetime | None, timeout: float | None, name: str) -> None:
    """Wait until the spool file NAME is done or has failed, and print its record as JSON.

    The exit code is 0 when it is done, 1 when it has failed, and 3 when there is no such file.
    """
    path = directory / name  # NAME may be a path of its own: /spool/hello.txt
    outcome = caller.run(lambda: _wait(path.parent, path.name, since, timeout))
    say_json(outcome.record)
    if not outcome.done:
        raise FileFailed(path.name, str(outcome.record.get("error") or "there is no record of why"))


async def _wait(directory: Path, name: str, since: datetime | None, seconds: float | None) -> WaitOutcome:
    # The watch of the spool is for Linux alone; other commands do without.
    from registry_spooler.spool import FileNotInSpool, wait_for_outcome

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
