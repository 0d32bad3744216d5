"""The event loop's pulse: does it come round when it should?

A loop that is blocked for good answers no probe at all, and the kubelet's time-out ends the pod. One that is blocked
again and again does answer, in between; this is where it shows. A loop that rests
has no pulse: there is nothing that could hold it up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

import anyio

BEAT_SECONDS: Final = 1.0
STALL_SECONDS: Final = 5.0
"""As long as the probes in the manifests wait for an answer. Nothing of ours keeps the loop for a hundredth of it."""
HELD_SECONDS: Final = 10.0
"""A stall shows for as long, so that the probe after it sees it."""


class Pulse:
    """Measures how late the event loop is. Loop thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = math.inf
        self._stalled_at: float | None = None
        self._stall_seconds = 0.0
        self.lag_seconds = 0.0
        """How late the last beat was."""

    async def beat(self) -> None:
        """Beat once: this takes a second, or longer when the loop does not come round in time."""
        self._due = self._clock() + BEAT_SECONDS
        await anyio.sleep(BEAT_SECONDS)
        self._note()
        self._due = math.inf

    @property
    def trouble(self) -> str:
        """What is wrong, as a sentence; empty when nothing is."""
        self._note()
        if self._stalled_at is None or self._clock() - self._stalled_at > HELD_SECONDS:
            return ""
        return f"the event loop stood still for {self._stall_seconds:.1f} seconds"

    def _note(self) -> None:
        if self._due == math.inf:
            return
        now = self._clock()
        self.lag_seconds = max(0.0, now - self._due)
        if self.lag_seconds >= STALL_SECONDS:
            self._stalled_at, self._stall_seconds = now, self.lag_seconds
