"""A lookout: something that is looked at again and again for as long as somebody wants to know, and then left alone.

Flow: `want` wakes it for a while → it looks at once; who asked after a rest waits for that (`first_look`), all others
are answered from memory → it looks again at intervals → nobody has asked for a while: it rests, without any timer.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

WANTED_SECONDS: Final = 60.0
"""Longer than the intervals of probes, of most scrapers and of the page: what these ask for is always in memory."""


class Lookout:
    """Calls `look` at intervals (in seconds, asked for after each look) while it is wanted. Loop thread only."""

    def __init__(self, look: Callable[[], Awaitable[None]], interval: Callable[[], float]) -> None:
        self._look = look
        self._interval = interval
        self._wanted_until = -math.inf
        self._wanted, self.first_look = anyio.Event(), anyio.Event()

    def want(self, seconds: float = WANTED_SECONDS) -> None:
        """Somebody wants to know, for so long."""
        self._wanted_until = max(self._wanted_until, anyio.current_time() + seconds)
        self._wanted.set()

    async def keep(self) -> None:
        """Look and rest until cancelled."""
        while True:
            await self._wanted.wait()
            await self._look()
            self.first_look.set()
            await anyio.sleep(self._interval())
            if anyio.current_time() >= self._wanted_until:
                self._wanted, self.first_look = anyio.Event(), anyio.Event()
