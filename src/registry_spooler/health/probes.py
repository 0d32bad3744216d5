"""What the probes ask: each check with its state, and who keeps it fresh.

A check is told what is the case as often as anybody looks; it remembers when that last changed. Times are wall-clock
seconds since the epoch.

`/live` asks only for what a restart can mend: the event loop and the watch. `/ready` asks also for the world around: a
registry that is down or a spool that cannot be written to makes the pod unready and never restarts it. Little room is
told and decides nothing: the spooler works on within its reserve, and an unready pod would take the registry beside it
out of its Service.

An event loop that is blocked for good answers no probe at all, and the kubelet's time-out ends the pod. One that is
blocked again and again does answer, in between; this is where it shows.

Each check that has to ask somebody is a task that asks at intervals (`check_periodically`); a probe is answered from
memory.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from registry_spooler.aio import in_thread
from registry_spooler.errors import SpoolerError
from registry_spooler.spool.directory.workdir import Capacity, measure
from registry_spooler.spool.state import Condition, SpoolState
from registry_spooler.text import rfc3339


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


class Checks:
    """The checks of one process, brought up to date by `look`."""

    def __init__(self, board: SpoolState, pulse: LoopLag, volume: Volume) -> None:
        self._board, self._pulse, self._volume = board, pulse, volume
        self.loop = Check("event_loop")
        self.watch = Check("watch")
        self.scan = Check("first_scan")
        self.registry = Check("registry")
        self.spool = Check("spool_writable")
        self.space = Check("spool_space", is_advice=True)

    @property
    def live(self) -> tuple[Check, ...]:
        """What `/live` and `/healthz` ask for."""
        return (self.loop, self.watch)

    @property
    def ready(self) -> tuple[Check, ...]:
        """What `/ready` tells besides."""
        return (self.scan, self.registry, self.spool, self.space)

    @property
    def is_live(self) -> bool:
        """Need nobody restart this process?"""
        return all(check.passing for check in self.live)

    @property
    def is_ready(self) -> bool:
        """Will a file that is dropped now be pushed now?"""
        return self.is_live and all(check.passing or check.is_advice for check in self.ready)

    def look(self) -> None:
        """Bring all of them up to date. Asks nothing that could wait."""
        self._look_at_process()
        self._look_at_spool()

    def _look_at_process(self) -> None:
        _say(self.loop, self._pulse.trouble, "the event loop comes round")
        _take_over(self.watch, self._board.watching, "the spool directory is watched", "it is not watched yet")

    def _look_at_spool(self) -> None:
        board = self._board
        _take_over(self.registry, board.registry, "the registry answers", "the registry has not been asked yet")
        _take_over(self.scan, board.scanned, "the first scan is done", "the first scan is not done")
        _take_over(self.spool, board.writable, "the spool can be written to", "that has not been tried yet")
        _say(self.space, self._volume.error or self._volume.room.shortage, "the volume has room")


def _say(check: Check, trouble: str, otherwise: str) -> None:
    if trouble:
        check.fails(trouble)
    else:
        check.passes(otherwise)


def _take_over(check: Check, condition: Condition, good: str, unknown: str) -> None:
    if condition.holds:
        check.passes(good, since=condition.since)
    else:
        check.fails(condition.error or unknown, since=condition.since)


BEAT_SECONDS: Final = 2.0
STALL_SECONDS: Final = 5.0
"""As long as the probes in the manifests wait for an answer. Nothing of ours keeps the loop for a hundredth of it."""
HELD_SECONDS: Final = 10.0
"""A stall shows for as long, so that the probe after it sees it."""


class LoopLag:
    """Measures how late the event loop is. Loop thread only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = math.inf
        self._stalled_at: float | None = None
        self._stall_seconds = 0.0
        self.lag_seconds = 0.0
        """How late the last beat was."""

    def beat(self) -> None:
        """Note how late this beat is; the next one is due in BEAT_SECONDS."""
        self._note()
        self._due = self._clock() + BEAT_SECONDS

    @property
    def trouble(self) -> str:
        """What is wrong, as a sentence; empty when nothing is."""
        self._note()
        if self._stalled_at is None or self._clock() - self._stalled_at > HELD_SECONDS:
            return ""
        return f"the event loop stood still for {self._stall_seconds:.1f} seconds"

    def _note(self) -> None:
        now = self._clock()
        self.lag_seconds = max(0.0, now - self._due)
        if self.lag_seconds >= STALL_SECONDS:
            self._stalled_at, self._stall_seconds = now, self.lag_seconds


Ping = Callable[[], Awaitable[None]]
"""Returns when the registry has answered as a registry does; raises SpoolerError when it has not."""

UP_INTERVAL_SECONDS: Final = 10.0
DOWN_INTERVAL_SECONDS: Final = 2.0
"""Sooner, so that the pod is ready soon after its registry."""
TIMEOUT_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 10.0


class RegistryPing:
    """Asks whether the registry answers, and notes it in a condition of the spool's state."""

    def __init__(self, ping: Ping, condition: Condition) -> None:
        self._ping, self._condition = ping, condition

    @property
    def interval_seconds(self) -> float:
        """When to ask again, from now."""
        return UP_INTERVAL_SECONDS if self._condition.holds else DOWN_INTERVAL_SECONDS

    async def ask(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Ask once. An unexpected error counts as no answer too, and is raised."""
        try:
            with anyio.fail_after(timeout_seconds):
                await self._ping()
        except TimeoutError:
            self._condition.set(False, f"the registry has not answered within {timeout_seconds:g} seconds")
        except SpoolerError as exc:
            self._condition.set(False, str(exc))
        except Exception as exc:
            self._condition.set(
                False, f"asking the registry met an internal error ({type(exc).__name__}); the log has more"
            )
            raise
        else:
            self._condition.set(True)


class Volume:
    """A directory's room as it was at the last look. Loop thread only."""

    def __init__(self, directory: Path, limit_bytes: int | None = None) -> None:
        self._directory, self._limit_bytes = directory, limit_bytes
        self.room = Capacity()
        self.error = ""
        """Why the last look failed; empty when it did not."""

    async def look(self) -> None:
        """Look once."""
        try:
            self.room = await in_thread(measure, self._directory, self._limit_bytes)
            self.error = ""
        except OSError as exc:
            self.error = f"the volume cannot be looked at: {exc.strerror or exc}"


_log: Final = logging.getLogger("registry_spooler.health")


async def check_periodically(look: Callable[[], Awaitable[None]], interval: Callable[[], float]) -> None:
    """Look at once and then again and again, `interval()` seconds after the last look ended, until cancelled.

    An unexpected error is logged once with its traceback, and ends nothing.
    """
    logged: type[Exception] | None = None
    while True:
        try:
            await look()
            logged = None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other checks, the spool and the process go on
            if logged is not type(exc):
                _log.error("a health check met an internal error", exc_info=exc)
            logged = type(exc)
        await anyio.sleep(interval())
