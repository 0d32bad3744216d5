"""A lookout: something that is looked at again and again for as long as somebody wants to know, and then left alone.

Flow: `want` wakes it for a while → it looks at once; who asked after a rest waits for that (`first_look`), all others
are answered from memory → it looks again at intervals → nobody has asked for a while: it rests, without any timer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

WANTED_SECONDS: Final = 60.0
"""Longer than the intervals of probes, of most scrapers and of the page: what these ask for is always in memory."""

_log: Final = logging.getLogger("registry_spooler.health")


class Lookout:
    """Calls `look` at intervals (in seconds, asked for after each look) while it is wanted. Loop thread only."""

    def __init__(self, look: Callable[[], Awaitable[None]], interval: Callable[[], float]) -> None:
        self._look = look
        self._interval = interval
        self._wanted_until = -math.inf
        self._wanted, self.first_look = anyio.Event(), anyio.Event()
        self._logged: type[Exception] | None = None

    def want(self, seconds: float = WANTED_SECONDS) -> None:
        """Somebody wants to know, for so long."""
        self._wanted_until = max(self._wanted_until, anyio.current_time() + seconds)
        self._wanted.set()

    async def keep(self) -> None:
        """Look and rest until cancelled."""
        while True:
            await self._wanted.wait()
            await self._look_unharmed()
            self.first_look.set()
            await anyio.sleep(self._interval())
            if anyio.current_time() >= self._wanted_until:
                self._wanted, self.first_look = anyio.Event(), anyio.Event()

    async def _look_unharmed(self) -> None:
        """Look; an error that nobody foresaw is logged once with its traceback, and ends nothing."""
        try:
            await self._look()
            self._logged = None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other checks, the spool and the process go on
            if self._logged is not type(exc):
                _log.error("a health check met an internal error", exc_info=exc)
            self._logged = type(exc)
