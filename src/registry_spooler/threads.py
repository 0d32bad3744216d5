"""Where blocking work goes: the worker threads, apart from the event loop.

Hashing, compression and file reads release the interpreter's lock, so a few threads keep all
processors busy. There are never more than `THREADS`, whatever the number of jobs: more would only
hold more buffers.
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

THREADS: Final = max(4, (os.cpu_count() or 1) + 2)
_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("registry_spooler_threads")


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a blocking function that ends by itself.

    A cancellation waits for it: whoever cancelled may then close what it read from.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)
