"""What a running push has done so far: written by the engine, read by status pages and progress bars."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counters of one job. Only the event loop's thread writes them; sizes are in bytes."""

    bytes_total: int = 0
    """The size of the source; 0 when it is not known (standard input)."""
    bytes_done: int = 0
    """How much of the source has been dealt with: read, or found to be in the registry already."""
    bytes_read: int = 0
    bytes_sent: int = 0
    """What went to the registry as blobs, resent bytes included."""
    bytes_to_send: int = 0
    """As far as it is known beforehand, `bytes_sent` included: from outside a cluster, where blobs are packed first."""
    bytes_skipped: int = 0
    """The sizes of the blobs that the registry had."""
    blobs_uploaded: int = 0
    blobs_existing: int = 0
    blobs_mounted: int = 0
    uploaded_bytes: int = 0
    """The sizes of the blobs that were uploaded, each once."""
    retries: Counter[str] = field(default_factory=Counter)
    """By reason, one of a fixed few words: `unreachable`, `status`, `upload`, `source`."""
