"""What a spool can be told, and when it tries again. Read once, at the edge.

Full jitter (any moment between now and the bound) keeps many jobs, and many spoolers, from coming back at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """One spool directory and how it is worked through."""

    directory: Path
    jobs_at_once: int = 4
    """Enough to keep the network busy while one job waits for the registry; each costs some memory."""
    settle_seconds: float = 5.0
    """Some people append to a file in several steps; between two of them there is seldom more time than this."""
    rescan_seconds: float = 60.0
    """For file systems that send no events; where there are events nothing depends on it."""
    stale_after_seconds: float = 24 * 3600.0
    """A copy of a large archive over a slow line may take hours, not days."""
    receipts_kept: int = 1_000
    shutdown_grace_seconds: float = 20.0
    """Below the 30 s that Kubernetes gives a pod."""
    backoff: Backoff = field(default_factory=Backoff)
