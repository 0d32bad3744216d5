"""Progress on a terminal, for both client programs: one bar for each transfer, drawn by rich on standard error.

A bar shows how much of what is to be moved has been, how fast, and the time that is left. Where standard error is no
terminal nothing is drawn: a log file is no place for bars.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from registry_spooler.aio import task_group
from registry_spooler.cli.printing import warn
from registry_spooler.progress import Progress
from registry_spooler.text import count_text, duration_text, printable, size_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


REFRESH_SECONDS: Final = 0.2
TITLE_COLUMNS: Final = 36
"""The width of a transfer's title."""

State = Callable[[], tuple[int, int, str]]
"""Returns the bytes moved, the bytes in all (0: unknown), and a text for the bar."""


class Bars:
    """Where transfers show how far they are. `rich` is None where nothing is drawn; `quiet` drops the last lines."""

    def __init__(self, rich: RichProgress | None, *, quiet: bool) -> None:
        self._rich = rich
        self._quiet = quiet

    @asynccontextmanager
    async def show(self, title: str, state: State) -> AsyncGenerator[None]:
        """Draw a bar while the block runs."""
        async with task_group() as tasks:
            if self._rich is not None:
                tasks.start_soon(self._draw, self._rich, title, state)
            yield
            tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def push(self, title: str) -> AsyncGenerator[Progress]:
        """Show a push that writes its progress into what this yields, and sum it up at its end."""
        progress = Progress()
        started = time.monotonic()
        async with self.show(title, lambda: _push_state(progress)):
            yield progress
        self._sum_up(title, _push_text(progress), started)

    @asynccontextmanager
    async def transfer(self, title: str) -> AsyncGenerator[Callable[[int, int], None]]:
        """Show a transfer; it calls what this yields with the bytes moved and the bytes in all (0: unknown)."""
        moved = (0, 0)
        started = time.monotonic()

        def update(done: int, total: int) -> None:
            nonlocal moved
            moved = (done, total)

        async with self.show(title, lambda: (*moved, size_text(moved[0]))):
            yield update
        self._sum_up(title, size_text(moved[0]), started)

    async def _draw(self, rich: RichProgress, title: str, state: State) -> None:
        task = rich.add_task(printable(title), total=None, text="")

        def update() -> None:
            done, total, text = state()
            rich.update(task, completed=done, total=total or None, text=text)

        try:
            while True:
                update()
                await anyio.sleep(REFRESH_SECONDS)
        finally:
            update()
            rich.refresh()  # the last state is seen even if the transfer was over between two
            rich.remove_task(task)

    def _sum_up(self, title: str, text: str, started: float) -> None:
        if not self._quiet:
            warn(f"{title}: {text} in {duration_text(time.monotonic() - started)}")


@contextmanager
def bars(*, quiet: bool = False) -> Generator[Bars]:
    """Draw on standard error while the block runs, if that is a terminal, rich is installed and nobody said `quiet`."""
    drawn = None if quiet or not sys.stderr.isatty() else _rich()
    if drawn is None:
        yield Bars(None, quiet=quiet)
        return
    with drawn:
        yield Bars(drawn, quiet=quiet)


def _rich() -> RichProgress | None:
    """Return rich's display, or None in an installation without the extra `client`."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
        from rich.text import Text
    except ImportError:
        return None

    class _Speed(ProgressColumn):
        """Bytes a second, in the units of everything else."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{size_text(speed)}/s" if speed else "")

    columns = (
        TextColumn(
            "{task.description}",
            markup=False,  # brackets in a name are a name's
            table_column=Column(no_wrap=True, overflow="ellipsis", max_width=TITLE_COLUMNS),
        ),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[text]}"),
        _Speed(),
        TimeRemainingColumn(),
    )
    return RichProgress(*columns, console=Console(stderr=True), transient=True)


def _push_state(progress: Progress) -> tuple[int, int, str]:
    """What is sent, of what is packed and what is not yet read: an estimate that becomes true."""
    unread = max(0, progress.bytes_total - progress.bytes_done)
    return progress.bytes_sent, progress.bytes_to_send + unread, _push_text(progress)


def _push_text(progress: Progress) -> str:
    existing = progress.blobs_existing + progress.blobs_mounted
    size = size_text(progress.bytes_skipped)
    skipped = f", {count_text(existing, 'blob')} there already ({size})" if existing else ""
    saved = f", {size_text(progress.saved_bytes)} saved by deltas" if progress.rebuilt_layers else ""
    return f"{size_text(progress.bytes_sent)} sent{saved}{skipped}"
