"""What a spool can be told. Read once, at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from registry_spooler.backoff import Backoff


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
