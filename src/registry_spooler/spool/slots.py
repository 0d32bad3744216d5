"""How many jobs may run at once: so many as the user says, and one more while all of these take long.

The one more is for quick jobs: what takes long there as well gives way when others wait, and does not come back to that
place. So a few archives that are endless work never keep the others from being pushed, and files that are pushed in a
moment do not wait for hours behind large ones.
"""

from __future__ import annotations

from typing import Final

from registry_spooler.spool.entry import Entry

LONG_SECONDS: Final = 2.0
"""A job that runs for longer takes long."""

GIVES_WAY_SECONDS: Final = 30.0
"""How long a job may have the place that is for quick ones, while others wait."""


class Slots:
    """Which jobs run, and since when (monotonic clock, seconds)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._started: dict[Entry, float] = {}

    def take(self, entry: Entry, now: float) -> None:
        """A job starts."""
        self._started[entry] = now

    def leave(self, entry: Entry) -> None:
        """A job has ended."""
        self._started.pop(entry, None)

    @property
    def are_full(self) -> bool:
        """Return whether as many jobs run as the user allows."""
        return len(self._started) >= self._limit

    def has_one_more(self, now: float) -> bool:
        """Return whether a quick job may start beside those that take long."""
        return len(self._started) == self._limit and now >= self._youngest + LONG_SECONDS

    def overdue(self, now: float) -> Entry | None:
        """Return the job that should give way if others wait, or None."""
        if len(self._started) <= self._limit or now < self._youngest + GIVES_WAY_SECONDS:
            return None
        latest = max(self._started, key=self._started.__getitem__)
        return None if latest.gave_way or latest.is_bundle else latest

    def next_change(self, now: float) -> float | None:
        """Return when one more place comes up, or somebody should give way; None when time alone changes nothing."""
        if not self.are_full:
            return None
        is_over = len(self._started) > self._limit
        change = self._youngest + (GIVES_WAY_SECONDS if is_over else LONG_SECONDS)
        return change if change > now else None

    @property
    def _youngest(self) -> float:
        return max(self._started.values())
