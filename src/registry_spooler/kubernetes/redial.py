"""Trying again what a broken connection interrupted, and how fast we may send.

What counts is time: an API server, a kubelet or a pod that restarts is away for a minute, however often it is asked.
The calls of one command share a Redial, so that what ails all of them is told once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from registry_spooler.backoff import Backoff
from registry_spooler.kubernetes.cluster_errors import KubeError, RemoteError

if TYPE_CHECKING:
    from typing_extensions import Buffer


STEP_BYTES: Final = 64 * 1024
"""What is sent between two looks at the clock: small enough for a smooth flow at a few hundred kB/s."""


def in_steps(piece: Buffer) -> Iterator[memoryview]:
    """Cut a piece into steps."""
    view = memoryview(piece).cast("B")
    return (view[start : start + STEP_BYTES] for start in range(0, len(view), STEP_BYTES))


class RateLimit:
    """Lets through `bytes_per_second` over all its users together."""

    def __init__(self, bytes_per_second: float) -> None:
        if bytes_per_second <= 0:
            raise ValueError("a rate limit is more than zero")
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    async def limited(self, pieces: AsyncGenerator[Buffer]) -> AsyncGenerator[Buffer]:
        """The same bytes, in steps, each when its turn has come."""
        async with aclosing(pieces):
            async for piece in pieces:
                for step in in_steps(piece):
                    await anyio.sleep(self._reserve(len(step)))
                    yield step

    def _reserve(self, size: int) -> float:
        """Take the next turn; the seconds until it comes."""
        now = anyio.current_time()
        begins = max(now, self._free_at)
        self._free_at = begins + size / self._bytes_per_second
        return begins - now


T = TypeVar("T")

LONGEST_PAUSE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Redial:
    """When to give up. A long push may break any number of times, as long as it gets on in between."""

    patience_seconds: float = 90.0
    """Since the first failure without progress."""
    attempts_min: int = 4
    """These are made however long each takes: an attempt may carry a large blob for an hour before it breaks."""
    first_pause_seconds: float = 0.5
    on_retry: Callable[[KubeError], None] = lambda _: None
    """Told of each failure that is not the last, but of the same one only once until a call succeeds."""
    _told: set[str] = field(default_factory=set)
    """What has been told since the last success: not empty while something is broken."""

    async def run(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        progress: Callable[[], int] = lambda: 0,
        heals: bool = True,
        has_worked: bool = False,
    ) -> T:
        """Do `work` until it succeeds, fails for good, or has failed for too long without `progress` having grown.

        `heals`: when it succeeds, all is well again. `has_worked`: the pod's registry has answered before, so that it
        is waited for as well.
        """
        failures, seen, since = 0, progress(), anyio.current_time()
        while True:
            try:
                result = await work()
            except KubeError as exc:
                if not failures or progress() > seen:
                    failures, seen, since = 0, progress(), anyio.current_time()
                failures += 1
                if not self._may_pass(exc, has_worked or failures > 1) or self._is_enough(
                    failures, anyio.current_time() - since
                ):
                    raise
                self._tell(exc)
            else:
                if heals:
                    self._told.clear()
                return result
            await anyio.sleep(self._pause(failures))

    def _may_pass(self, error: KubeError, has_worked: bool) -> bool:
        # What runs in the pod has tried for some seconds already: too short for a container that restarts.
        return error.temporary and (has_worked or bool(self._told) or not isinstance(error, RemoteError))

    def _is_enough(self, failures: int, seconds: float) -> bool:
        return failures >= self.attempts_min and seconds >= self.patience_seconds

    def _tell(self, error: KubeError) -> None:
        if str(error) not in self._told:
            self._told.add(str(error))
            self.on_retry(error)

    def _pause(self, failures: int) -> float:
        backoff = Backoff(base_seconds=self.first_pause_seconds, cap_seconds=LONGEST_PAUSE_SECONDS)
        return backoff.delay_seconds(failures)
