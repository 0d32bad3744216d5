"""A line of those who wait for one of a few places, each of whom is told how many come first."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio


@dataclass(slots=True)
class _InLine:
    tell: Callable[[int], None]
    turn: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class Line:
    """Lets few work at a time, in the order of arrival. Loop thread only."""

    places: int
    _taken: int = 0
    _waiting: deque[_InLine] = field(default_factory=deque)

    @asynccontextmanager
    async def place(self, tell: Callable[[int | None], None]) -> AsyncGenerator[None]:
        """Wait for a place and keep it for the block; `tell` is called with how many come first, None at last."""
        if self._taken < self.places:
            self._taken += 1
        else:
            await self._wait(tell)
        try:
            tell(None)
            yield
        finally:
            self._leave()

    async def _wait(self, tell: Callable[[int], None]) -> None:
        waiting = _InLine(tell)
        self._waiting.append(waiting)
        self._tell()
        try:
            await waiting.turn.wait()
        except BaseException:
            if waiting.turn.is_set():
                self._leave()
            else:
                self._waiting.remove(waiting)
                self._tell()
            raise

    def _leave(self) -> None:
        """Hand the place to who comes next."""
        if not self._waiting:
            self._taken -= 1
            return
        self._waiting.popleft().turn.set()
        self._tell()

    def _tell(self) -> None:
        for index, waiting in enumerate(self._waiting):
            waiting.tell(self._taken + index)
