"""Where blocking work goes: the worker threads, apart from the event loop.

Hashing, compression and file reads release the interpreter's lock, so a few threads keep all processors busy. There
are never more than `WORKERS` for what takes long, whatever the number of jobs: more would only hold more buffers.
What takes a moment has threads of its own, so that it never waits for archives that are much work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS: Final = 4
"""For what takes a moment: a call of the operating system, a small file."""
WORKERS: Final = max(4, (os.cpu_count() or 1) + 2)
"""For what computes: each call takes a tenth of a second at most, or about so."""

_Limiter = anyio.lowlevel.RunVar[anyio.CapacityLimiter]
_threads: _Limiter = anyio.lowlevel.RunVar("registry_spooler_threads")
_workers: _Limiter = anyio.lowlevel.RunVar("registry_spooler_workers")


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a blocking function that takes a moment.

    A cancellation waits for it: whoever cancelled may then close what it read from.
    """
    return await anyio.to_thread.run_sync(function, *args, limiter=_limiter(_threads, THREADS))


async def in_worker(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a step of what takes long as a whole: reading, hashing, compressing. A cancellation waits for it."""
    return await anyio.to_thread.run_sync(function, *args, limiter=_limiter(_workers, WORKERS))


def _limiter(variable: _Limiter, size: int) -> anyio.CapacityLimiter:
    try:
        return variable.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(size)
        variable.set(limiter)
        return limiter
