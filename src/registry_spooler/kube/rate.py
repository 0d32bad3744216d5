"""How fast we may send: one limit, shared by all connections of a command."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from typing_extensions import Buffer

STEP_BYTES: Final = 64 * 1024
"""What is sent between two looks at the clock: small enough for a smooth flow at a few hundred kB/s."""


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
                view = memoryview(piece).cast("B")
                for start in range(0, len(view), STEP_BYTES):
                    step = view[start : start + STEP_BYTES]
                    await anyio.sleep(self._reserve(len(step)))
                    yield step

    def _reserve(self, size: int) -> float:
        """Take the next turn; the seconds until it comes."""
        now = anyio.current_time()
        begins = max(now, self._free_at)
        self._free_at = begins + size / self._bytes_per_second
        return begins - now
