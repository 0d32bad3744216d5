"""Task groups, worker threads, and the one rule on which of several errors counts.

Hashing, compression and file reads release the interpreter's lock, so a few threads keep all processors busy. There
are never more than `WORKERS` for what takes long, whatever the number of jobs: more would only hold more buffers.
What takes a moment has threads of its own, so that it never waits for archives that are much work.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar, TypeVarTuple

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from registry_spooler.errors import ArchiveError, SpoolerError


@asynccontextmanager
async def task_group() -> AsyncIterator[anyio.abc.TaskGroup]:
    """A task group that raises one error, the `foremost` of those that its tasks raised."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as group_error:
        error = foremost(group_error)
        raise error from error.__cause__


def foremost(error: BaseException) -> BaseException:
    """Return the error that counts in a group of them; any other error is itself.

    In this order: what ends the process; what is wrong with the archive, which its owner has to know whatever else
    went wrong beside it; what else no retry will mend; an unexpected error of ours, so that it is logged; and what
    passes (a temporary error, an operating system's). Of equals the first one.
    """
    return min(_leaves(error), key=_rank) if isinstance(error, BaseExceptionGroup) else error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _rank(error: BaseException) -> int:
    if not isinstance(error, Exception):
        return 0
    if isinstance(error, SpoolerError) and not error.temporary:
        return 1 if isinstance(error, ArchiveError) else 2
    return 4 if isinstance(error, SpoolerError | OSError) else 3


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


async def in_own_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a step that may wait for somebody else, such as the writer of a pipe: it must keep no worker from working."""
    return await anyio.to_thread.run_sync(function, *args, limiter=anyio.CapacityLimiter(1))


def _limiter(variable: _Limiter, size: int) -> anyio.CapacityLimiter:
    try:
        return variable.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(size)
        variable.set(limiter)
        return limiter
