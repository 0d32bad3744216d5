"""`push --watch`: a round again whenever a file or an engine's image has changed, until Ctrl-C.

A file is what its inode, size and times say; a build may write it for seconds, so it counts when it has not changed for
`SETTLE_SECONDS`. An engine's image is its ID. What cannot be read at the moment has not changed.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio
import click

from registry_spooler.aio import in_thread
from registry_spooler.cli.kubectl.pushing.arguments import STDIN, Item
from registry_spooler.cli.printing import warn
from registry_spooler.errors import SpoolerError

POLL_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 1.0

State = tuple[object, ...]
"""What the items are, in their order; None for one that cannot be read."""


def check_watchable(items: tuple[Item, ...]) -> None:
    """Raise a usage error for what comes by once."""
    if any(item.file == STDIN or (item.image is None and not Path(item.file).is_file()) for item in items):
        raise click.UsageError("--watch wants files or names of images; a pipe cannot be read again")


async def watch(items: tuple[Item, ...], work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` now and after each change, until cancelled; what it raises is told, and watching goes on."""
    while True:
        state = await in_thread(_state, items)
        try:
            await work()
        except SpoolerError as exc:
            warn(str(exc))
        await _changed(items, state)


async def _changed(items: tuple[Item, ...], before: State) -> None:
    """Return when something is not what it was, and stays as it is."""
    seen, since = before, anyio.current_time()
    while True:
        await anyio.sleep(POLL_SECONDS)
        found = await in_thread(_state, items)
        if found != seen:
            seen, since = found, anyio.current_time()
        is_new = any(now is not None and now != then for now, then in zip(seen, before, strict=True))
        if is_new and anyio.current_time() - since >= SETTLE_SECONDS:
            return


def _state(items: tuple[Item, ...]) -> State:
    return tuple(item.image.identity() if item.image is not None else _identity(item.file) for item in items)


def _identity(file: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
