"""Task groups whose errors are those of the work itself, not groups of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from registry_spooler.errors import SpoolerError


@asynccontextmanager
async def task_group() -> AsyncIterator[anyio.abc.TaskGroup]:
    """A task group that raises the one error that matters most.

    An unexpected error comes first, then one that no retry will mend, then a temporary one.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as group_error:
        error = foremost(group_error)
        raise error from error.__cause__


def foremost(error: BaseException) -> BaseException:
    """The error that matters most in a group of them; any other error is itself."""
    return min(_leaves(error), key=_rank) if isinstance(error, BaseExceptionGroup) else error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _rank(error: BaseException) -> int:
    if not isinstance(error, SpoolerError):
        return 0
    return 2 if error.temporary else 1
