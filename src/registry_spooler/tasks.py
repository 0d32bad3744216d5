"""Task groups whose errors are those of the work itself, and the one rule on which of several errors counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

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
