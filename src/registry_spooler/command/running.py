"""Running a command's asynchronous work so that signals call it off in good order.

The first signal cancels the work: open uploads are given up at the registry, half-written files go. A second one ends
the program at once.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from registry_spooler.command.ending import Interrupted, end_by

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run to the end; Interrupted when a signal came first."""
    return anyio.run(_interruptible, work)


async def _interruptible(work: Callable[[], Awaitable[T]]) -> T:
    caught: list[int] = []
    with anyio.CancelScope() as scope:

        def call_off(signum: int) -> None:
            if caught:
                end_by(signum)
            caught.append(signum)
            scope.cancel()

        for signum in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, call_off, signum)
        return await work()
    raise Interrupted(caught[0])
