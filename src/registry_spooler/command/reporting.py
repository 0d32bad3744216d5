"""How far a transfer is, on standard error: a bar for a person, lines of JSON for a caller beyond the API server.

Otherwise nothing: a log file is no place for bars.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from registry_spooler.tasks import task_group
from registry_spooler.text import printable
from registry_spooler.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Generator

    from registry_spooler.command.remote import FarEnd
    from registry_spooler.progress import Progress

_REFRESH_SECONDS: Final = 0.25

Report = Callable[[], None]


@asynccontextmanager
async def reported(progress: Progress, title: str, far_end: FarEnd | None) -> AsyncGenerator[None]:
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
def _report(progress: Progress, title: str, far_end: FarEnd | None) -> Generator[Report | None]:
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
