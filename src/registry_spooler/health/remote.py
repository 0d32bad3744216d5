"""What the daemon does for callers beyond the API server: the transfers that run or wait, and counts of all calls."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field, fields
from typing import Any, Final

from registry_spooler.progress import BlobCounts, ImageResult, Progress
from registry_spooler.text import rfc3339

COMMANDS: Final = (
    *("receive", "missing", "signature", "rebuild", "pull", "deposit"),
    *("wait", "list", "tags", "inspect", "delete", "other"),
)
"""The commands of `registry-client` that are counted each; `other` are all the rest."""
OUTCOMES: Final = ("done", "failed", "cancelled")
PUSHED_SHOWN: Final = 20
UNFINISHED_MAX: Final = 100
"""Repositories whose blobs have come before their images; more are forgotten."""


@dataclass(slots=True, kw_only=True)
class RemoteTransfer:
    """An image, or some of its blobs, on its way through an exec."""

    command: str
    """The command of `registry-client`: `receive` or `pull`."""
    reference: str = ""
    """The image, or the repository where only blobs go; empty until the command has begun."""
    started: float = field(default_factory=time.time)
    """Wall-clock seconds since the epoch."""
    ahead: int | None = None
    """How many others come first; None when it is this one's turn."""
    progress: Progress = field(default_factory=Progress)
    result: ImageResult | None = None
    """The image that has been pushed."""

    def to_json(self, now: float) -> dict[str, Any]:
        """Return the transfer as the status has it."""
        return {
            "command": self.command,
            "reference": self.reference or None,
            "started": rfc3339(self.started),
            "seconds": round(now - self.started, 3),
            "ahead": self.ahead,
            "bytes_total": self.progress.bytes_total,
            "bytes_done": self.progress.bytes_done,
            "bytes_sent": self.progress.bytes_sent,
            "bytes_skipped": self.progress.bytes_skipped,
        }


@dataclass(slots=True)
class RemoteWork:
    """All of it. Loop thread only."""

    transfers: list[RemoteTransfer] = field(default_factory=list)
    """In the order in which they came."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Ended calls, by command and outcome: one of COMMANDS and one of OUTCOMES."""
    received_bytes: int = 0
    """What callers sent, in calls that have ended."""
    sent_bytes: int = 0
    """What was sent to callers, in calls that have ended."""
    rebuilt_layers: int = 0
    """How many layers were made here from one that was there and a delta."""
    saved_bytes: int = 0
    """What sending these whole would have taken in addition."""
    images: int = 0
    """How many images have been pushed."""
    pushed: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=PUSHED_SHOWN))
    """The last of them, as a receipt has them; the newest is the last."""
    _unfinished: dict[str, tuple[float, BlobCounts]] = field(default_factory=dict)
    """By repository: since when blobs have come for an image that is not there yet, and which."""

    def count(self, command: str, outcome: str, *, received_bytes: int, sent_bytes: int) -> None:
        """Count a call that has ended."""
        self.calls[command if command in COMMANDS else "other", outcome] += 1
        self.received_bytes += received_bytes
        self.sent_bytes += sent_bytes

    def ended(self, transfer: RemoteTransfer) -> None:
        """Count what a transfer has brought.

        The blobs of an image come in calls of their own, in several side by side, before its manifest does: they count
        for the next image of their repository.
        """
        progress, result = transfer.progress, transfer.result
        self.rebuilt_layers += progress.rebuilt_layers
        self.saved_bytes += progress.saved_bytes
        if result is None:
            if progress.blobs_uploaded:
                since, counts = self._unfinished.pop(transfer.reference, (transfer.started, BlobCounts()))
                self._unfinished[transfer.reference] = since, _sum(counts, progress)
                if len(self._unfinished) > UNFINISHED_MAX:
                    del self._unfinished[next(iter(self._unfinished))]
            return
        since, counts = self._unfinished.pop(result.reference.repository, (transfer.started, BlobCounts()))
        counts, now = _sum(counts, result.counts), time.time()
        self.images += 1
        self.pushed.append(
            {
                "action": "push",
                **result.to_json(),
                **counts.to_json(),
                "started": rfc3339(since),
                "finished": rfc3339(now),
                "seconds": round(now - since, 3),
            }
        )

    @property
    def waiting(self) -> int:
        """Return how many transfers wait for their turn."""
        return sum(transfer.ahead is not None for transfer in self.transfers)


def _sum(one: BlobCounts, other: BlobCounts) -> BlobCounts:
    return BlobCounts(
        **{name: getattr(one, name) + getattr(other, name) for name in (each.name for each in fields(BlobCounts))}
    )
