"""When a request is sent again, and when a whole host is left in peace.

A request that can be repeated is, with full jitter, for a short while only: whoever called has more
patience than a client should have (the spool tries for ever). What a host asks for with `Retry-After`
binds every request to that host (RFC 9110, section 10.2.3).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import anyio

RETRIED_STATUSES: Final = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})
RETRY_AFTER_MAX_SECONDS: Final = 300.0
"""More than this is not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient one request is."""

    tries: int = 5
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 30.0
    patience_seconds: float = 20.0
    """The most that is slept before one more try; who asks for more than this is told to come back later."""

    def delay_seconds(self, failures: int, draw: Callable[[float, float], float] = random.uniform) -> float:
        """Full jitter: anything up to a bound that doubles with each failure."""
        return draw(0.0, min(self.longest_delay_seconds, self.first_delay_seconds * 2 ** (failures - 1)))


@dataclass(slots=True)
class HostPauses:
    """Until when each host wants no requests."""

    clock: Callable[[], float] = time.monotonic
    _until: dict[str, float] = field(default_factory=dict)

    def pause(self, host: str, seconds: float) -> None:
        """Leave a host in peace; a shorter pause never ends a longer one."""
        until = self.clock() + min(seconds, RETRY_AFTER_MAX_SECONDS)
        self._until[host] = max(until, self._until.get(host, 0.0))

    def remaining_seconds(self, host: str) -> float:
        """How long from now; 0 when it may be asked."""
        until = self._until.get(host)
        if until is None:
            return 0.0
        remaining = until - self.clock()
        if remaining <= 0:
            del self._until[host]
            return 0.0
        return remaining

    async def wait(self, host: str) -> None:
        """Sleep until the host may be asked again."""
        # Another answer may have made it longer.
        while remaining := self.remaining_seconds(host):  # noqa: ASYNC110 - the time itself is what is waited for
            await anyio.sleep(remaining)


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The `Retry-After` of an answer in either of its forms, seconds or a date; None when there is none."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, LookupError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)
