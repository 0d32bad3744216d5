"""What the daemon does for callers beyond the API server: the transfers that run or wait, and counts of all calls."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from registry_spooler.progress import Progress
from registry_spooler.text import rfc3339

COMMANDS: Final = (
    *("receive", "missing", "signature", "rebuild", "pull", "deposit"),
    *("wait", "list", "tags", "inspect", "delete", "other"),
)
"""The commands of `registry-client` that are counted each; `other` are all the rest."""
OUTCOMES: Final = ("done", "failed", "cancelled")


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

    def count(self, command: str, outcome: str, *, received_bytes: int, sent_bytes: int) -> None:
        """Count a call that has ended."""
        self.calls[command if command in COMMANDS else "other", outcome] += 1
        self.received_bytes += received_bytes
        self.sent_bytes += sent_bytes

    @property
    def waiting(self) -> int:
        """Return how many transfers wait for their turn."""
        return sum(transfer.ahead is not None for transfer in self.transfers)
