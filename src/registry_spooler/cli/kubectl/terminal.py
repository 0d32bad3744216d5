"""What `kubectl spool` prints: answers, warnings, and bars on a terminal.

Much of it was said by a registry or a pod: whatever that is, no control character of theirs reaches a terminal.

On a terminal rich draws one bar a file: how much of what is to be sent has been, how fast, the time that is left, and
how many blobs the registry had already.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import click
import orjson

from registry_spooler.aio import task_group
from registry_spooler.progress import Progress
from registry_spooler.text import count_text, duration_text, printable, size_text, terminal_safe_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


PROGRAM = "kubectl spool"

DONE, FAILED, USAGE, NOT_FOUND, NOT_ALLOWED = range(5)
"""Exit codes, those of `registry-client` too."""


def say(*columns: str) -> None:
    """A line of the answer; tabs between its columns."""
    click.echo("\t".join(map(printable, columns)))


def say_json(document: Any) -> None:
    """The answer, for a program."""
    click.echo(terminal_safe_json(orjson.dumps(document, option=orjson.OPT_INDENT_2)).decode())


def say_bytes(content: bytes) -> None:
    """The answer as it is."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def warn(text: str) -> None:
    """A line for people, beside the answer."""
    click.echo(f"{PROGRAM}: {printable(text)}", err=True)


REFRESH_SECONDS: Final = 0.2
TITLE_COLUMNS: Final = 36
"""The width of a file's name and target."""


class Bars:
    """Where files show how far they are. `rich` is None where there is no terminal, or nobody wants to see it."""

    def __init__(self, rich: RichProgress | None, *, quiet: bool) -> None:
        self._rich = rich
        self._quiet = quiet

    @asynccontextmanager
    async def push(self, title: str) -> AsyncGenerator[Progress]:
        """Show a push that writes its progress into what this yields."""
        progress = Progress()
        started = time.monotonic()
        async with task_group() as tasks:
            if self._rich is not None:
                tasks.start_soon(self._draw, title, lambda: _push_state(progress))
            yield progress
            tasks.cancel_scope.cancel()
        self._say(f"{title}: {_push_text(progress)} in {duration_text(time.monotonic() - started)}")

    @asynccontextmanager
    async def transfer(self, title: str) -> AsyncGenerator[Callable[[int, int], None]]:
        """Show a transfer that tells how many bytes of how many (0: unknown) have been moved."""
        state = (0, 0)
        started = time.monotonic()

        def told(done: int, total: int) -> None:
            nonlocal state
            state = (done, total)

        async with task_group() as tasks:
            if self._rich is not None:
                tasks.start_soon(self._draw, title, lambda: (*state, size_text(state[0])))
            yield told
            tasks.cancel_scope.cancel()
        self._say(f"{title}: {size_text(state[0])} in {duration_text(time.monotonic() - started)}")

    async def _draw(self, title: str, state: Callable[[], tuple[int, int, str]]) -> None:
        assert self._rich is not None
        task = self._rich.add_task(printable(title), total=None, said="")
        try:
            while True:
                done, total, said = state()
                self._rich.update(task, completed=done, total=total or None, said=said)
                await anyio.sleep(REFRESH_SECONDS)
        finally:
            self._rich.remove_task(task)

    def _say(self, text: str) -> None:
        if not self._quiet:
            warn(text)


@contextmanager
def bars(*, quiet: bool = False) -> Generator[Bars]:
    """Draw on standard error for the time of a `with`, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield Bars(None, quiet=quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column
    from rich.text import Text

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
        TextColumn("{task.fields[said]}"),
        _Speed(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as drawn:
        yield Bars(drawn, quiet=quiet)


def _push_state(progress: Progress) -> tuple[int, int, str]:
    """What is sent, of what is packed and what is not yet read: an estimate that becomes true."""
    unread = max(0, progress.bytes_total - progress.bytes_done)
    return progress.bytes_sent, progress.bytes_to_send + unread, _push_text(progress)


def _push_text(progress: Progress) -> str:
    there = progress.blobs_existing + progress.blobs_mounted
    size = size_text(progress.bytes_skipped)
    skipped = f", {count_text(there, 'blob')} there already ({size})" if there else ""
    return f"{size_text(progress.bytes_sent)} sent{skipped}"
