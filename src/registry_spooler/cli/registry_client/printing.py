"""What `registry-client` prints: answers, warnings, and how far a transfer is.

Names come from registries and archives, so whatever they hold, no control character of theirs reaches a terminal.

Otherwise nothing: a log file is no place for bars.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import orjson

from registry_spooler.aio import in_thread, task_group
from registry_spooler.pull.output import OutputClosed, OutputFailed
from registry_spooler.text import printable, terminal_safe_json

if TYPE_CHECKING:
    from collections.abc import Generator

    from registry_spooler.cli.registry_client.far_end import RemoteSession
    from registry_spooler.progress import Progress


_written_bytes = 0


def written_bytes() -> int:
    """How much has gone to standard output so far, here and by whoever told `count`."""
    return _written_bytes


def count(size: int) -> None:
    """Take note of bytes that somebody else wrote to standard output."""
    global _written_bytes
    _written_bytes += size


def say(line: str) -> None:
    """One line on standard output."""
    _write(printable(line).encode() + b"\n")


def say_json(document: Any) -> None:
    """A JSON document on standard output: one line for a program, indented for a person."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    _write(terminal_safe_json(orjson.dumps(document, option=option | orjson.OPT_APPEND_NEWLINE)))


def say_bytes(content: bytes) -> None:
    """Bytes on standard output as they are."""
    _write(content)


def warn(line: str) -> None:
    """One line on standard error; nothing when nobody reads it."""
    try:
        sys.stderr.write(f"registry-client: {printable(line)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def flush() -> None:
    """Write out what is buffered; OutputClosed or OutputFailed when that cannot be."""
    _translated(b"")


def _write(content: bytes) -> None:
    _translated(content)


def _translated(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        count(len(content))
        if not content or sys.stdout.isatty():
            sys.stdout.buffer.flush()
    except BrokenPipeError as exc:
        _give_up()
        raise OutputClosed from exc
    except OSError as exc:
        _give_up()
        raise OutputFailed("standard output", exc.strerror or str(exc)) from exc


def _give_up() -> None:
    """Let what is still buffered go nowhere: the interpreter would try to write it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


_REFRESH_SECONDS: Final = 0.25

Report = Callable[[], None]


@asynccontextmanager
async def reported(progress: Progress, title: str, far_end: RemoteSession | None) -> AsyncGenerator[None]:
    """Report again and again while the block runs, and once more when it ends well."""
    with _report(progress, title, far_end) as report:
        if report is None:
            yield
            return
        async with task_group() as group:
            group.start_soon(_repeat, report)
            yield
            group.cancel_scope.cancel()


async def _repeat(report: Report) -> None:
    while True:
        await in_thread(report)
        await anyio.sleep(_REFRESH_SECONDS)


@contextmanager
def _report(progress: Progress, title: str, far_end: RemoteSession | None) -> Generator[Report | None]:
    if far_end is not None:
        yield lambda: far_end.progress(progress)
        far_end.progress(progress, final=True)
    elif sys.stderr.isatty():
        with _bar(progress, title) as report:
            yield report
    else:
        yield None


@contextmanager
def _bar(progress: Progress, title: str) -> Generator[Report | None]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
    except ImportError:  # an installation without the extra `client`
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    name = TextColumn("{task.description}", markup=False)  # brackets in a name are a name's
    console = Console(stderr=True)
    with Bars(name, *columns, console=console, transient=True, auto_refresh=False) as bars:
        task = bars.add_task(printable(title), total=None)

        def report() -> None:
            bars.update(task, completed=progress.bytes_done, total=progress.bytes_total or None, refresh=True)

        yield report
        report()
