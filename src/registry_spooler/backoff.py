"""How long to wait before another try: a bound that doubles with each failure, and full jitter below it.

Full jitter keeps many jobs, and many spoolers, from coming back at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

RETRY_AFTER_MAX_SECONDS: Final = 300.0
"""The longest wait that a registry may ask for; a longer one is not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The bounds of the waits, in seconds."""

    base_seconds: float = 1.0
    cap_seconds: float = 30.0

    def bound_seconds(self, failures: int) -> float:
        """Return the longest wait after `failures` failures in a row (1 or more)."""
        return min(self.cap_seconds, self.base_seconds * 2.0 ** min(failures - 1, 30))

    def delay_seconds(self, failures: int, *, retry_after_seconds: float | None = None) -> float:
        """Return a random wait after `failures` failures in a row, no shorter than what the other side asked for."""
        delay = random.uniform(0.0, self.bound_seconds(failures))  # noqa: S311 - not a secret
        return max(delay, min(retry_after_seconds or 0.0, RETRY_AFTER_MAX_SECONDS))
