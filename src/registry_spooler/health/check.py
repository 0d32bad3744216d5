"""Checks: what a probe asks for, each with its state, since when, and a sentence for people.

A check is told what is the case as often as anybody looks; it remembers when that last changed. Times are wall-clock
seconds since the epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from registry_spooler.moment import rfc3339


@dataclass(slots=True)
class Check:
    """One thing that has to be so. It starts out failing, since nobody has looked yet."""

    name: str
    passing: bool = False
    since: float = 0.0
    detail: str = "not looked at yet"
    is_advice: bool = False
    """Is it only told, without a say in the probe's answer?"""
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def passes(self, detail: str = "", *, since: float | None = None) -> None:
        """It is so; `since` when the one who says it knows better than the time of the first look."""
        self._set(True, detail, since)

    def fails(self, detail: str, *, since: float | None = None) -> None:
        """It is not so, and `detail` says what is the case instead."""
        self._set(False, detail, since)

    def to_json(self) -> dict[str, Any]:
        """As the probes answer it."""
        state = "ok" if self.passing else "warning" if self.is_advice else "failing"
        return {"state": state, "since": rfc3339(self.since), "detail": self.detail}

    def _set(self, passing: bool, detail: str, since: float | None) -> None:
        if passing != self.passing:
            self.since = self.clock()
        self.passing, self.detail = passing, detail
        if since is not None:
            self.since = since
