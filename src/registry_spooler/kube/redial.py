"""Trying again what a broken connection interrupted."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio

from registry_spooler.kube.errors import KubeError, RemoteError

T = TypeVar("T")

LONGEST_PAUSE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Redial:
    """When to give up. Attempts that got somewhere are not counted: a long push may break any number of times."""

    attempts: int = 6
    """About half a minute in all: an API server that restarts is back by then."""
    first_pause_seconds: float = 0.5
    on_retry: Callable[[KubeError], None] = lambda _: None
    """Told of each failure that is not the last."""

    async def run(self, work: Callable[[], Awaitable[T]], *, progress: Callable[[], int] = lambda: 0) -> T:
        """Do `work` until it succeeds, fails for good, or fails too often without `progress` having grown."""
        failures = 0
        seen = progress()
        while True:
            try:
                return await work()
            except RemoteError:
                raise  # what runs in the pod has tried again already
            except KubeError as exc:
                if progress() > seen:
                    failures, seen = 0, progress()
                failures += 1
                if not exc.temporary or failures >= self.attempts:
                    raise
                self.on_retry(exc)
            await anyio.sleep(self._pause(failures))

    def _pause(self, failures: int) -> float:
        longest: float = min(self.first_pause_seconds * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - it only spreads the callers
