"""When to try again: exponential back-off with full jitter.

Full jitter (any moment between now and the bound) keeps many jobs, and many spoolers, from coming back at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

RETRY_AFTER_MAX_SECONDS: Final = 3600.0
"""What a registry may ask for at most; more is a mistake of its clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The bounds of the waiting; seconds."""

    base_seconds: float = 1.0
    cap_seconds: float = 30.0

    def delay_seconds(self, failures: int, *, retry_after_seconds: float | None = None) -> float:
        """How long to wait after so many failures in a row, and no shorter than the other side asked for."""
        bound = min(self.cap_seconds, self.base_seconds * 2.0 ** min(failures - 1, 30))
        jittered = random.uniform(0.0, bound)  # noqa: S311 - no secret hangs on it
        return max(jittered, min(retry_after_seconds or 0.0, RETRY_AFTER_MAX_SECONDS))
