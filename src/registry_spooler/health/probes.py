"""What the probes ask: each check with its state, and who keeps it fresh.

A check is told what is the case as often as anybody looks; it remembers when that last changed. Times are wall-clock
seconds since the epoch.

`/live` asks only for what a restart can mend: the event loop and the watch. `/ready` asks also for the world around: a
registry that is down or a spool that cannot be written to makes the pod unready and never restarts it. Little room is
told and decides nothing: the spooler works on within its reserve, and an unready pod would take the registry beside it
out of its Service.

A loop that is blocked for good answers no probe at all, and the kubelet's time-out ends the pod. One that is blocked
again and again does answer, in between; this is where it shows. A loop that rests
has no pulse: there is nothing that could hold it up.

Flow: `want` wakes it for a while → it looks at once; who asked after a rest waits for that (`first_look`), all others
are answered from memory → it looks again at intervals → nobody has asked for a while: it rests, without any timer.

An idle daemon that nobody asks has no timer here. What happened meanwhile is found out by the first question; what the
spool knows (the watch, whether it can be written to) bears the spool's own time.
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
import anyio.abc

from registry_spooler.aio import in_thread
from registry_spooler.errors import SpoolerError
from registry_spooler.spool.directory.workdir import Capacity, measure
from registry_spooler.spool.scheduling.job import JobEnd, Outcome
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
        """Bring all but `registry`, which has its own watch, up to date. Asks nothing that could wait."""
        self._look_at_process()
        self._look_at_spool()

    def _look_at_process(self) -> None:
        _say(self.loop, self._pulse.trouble, "the event loop comes round")
        _take_over(self.watch, self._board.watching, "the spool directory is watched", "it is not watched yet")

    def _look_at_spool(self) -> None:
        board = self._board
        _take_over(self.scan, board.scanned, "the first scan is done", "the first scan is not done")
        _take_over(self.spool, board.writable, "the spool can be written to", "that has not been tried yet")
        _say(self.space, self._volume.error or self._volume.room.shortage, "the volume has room")


def _say(check: Check, trouble: str, otherwise: str) -> None:
    if trouble:
        check.fails(trouble)
    else:
        check.passes(otherwise)


def _take_over(check: Check, fact: Condition, good: str, unknown: str) -> None:
    if fact.holds:
        check.passes(good, since=fact.since)
    else:
        check.fails(fact.error or unknown, since=fact.since)


BEAT_SECONDS: Final = 1.0
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

    async def beat(self) -> None:
        """Beat once: this takes a second, or longer when the loop does not come round in time."""
        self._due = self._clock() + BEAT_SECONDS
        await anyio.sleep(BEAT_SECONDS)
        self._note()
        self._due = math.inf

    @property
    def trouble(self) -> str:
        """What is wrong, as a sentence; empty when nothing is."""
        self._note()
        if self._stalled_at is None or self._clock() - self._stalled_at > HELD_SECONDS:
            return ""
        return f"the event loop stood still for {self._stall_seconds:.1f} seconds"

    def _note(self) -> None:
        if self._due == math.inf:
            return
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


def registry_interval(check: Check) -> float:
    """When to ask again, in seconds from now."""
    return UP_INTERVAL_SECONDS if check.passing else DOWN_INTERVAL_SECONDS


async def look_at_registry(ping: Ping, check: Check, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Ask once. An error that nobody foresaw makes the check fail too, and is raised."""
    try:
        with anyio.fail_after(timeout_seconds):
            await ping()
    except TimeoutError:
        check.fails(f"the registry has not answered within {timeout_seconds:g} seconds")
    except SpoolerError as exc:
        check.fails(str(exc))
    except Exception as exc:
        check.fails(f"asking the registry met an internal error ({type(exc).__name__}); the log has more")
        raise
    else:
        check.passes("the registry answers")


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


WANTED_SECONDS: Final = 60.0
"""Longer than the intervals of probes, of most scrapers and of the page: what these ask for is always in memory."""

_log: Final = logging.getLogger("registry_spooler.health")


class PeriodicCheck:
    """Calls `look` at intervals (in seconds, asked for after each look) while it is wanted. Loop thread only."""

    def __init__(self, look: Callable[[], Awaitable[None]], interval: Callable[[], float]) -> None:
        self._look = look
        self._interval = interval
        self._wanted_until = -math.inf
        self._wanted, self.first_look = anyio.Event(), anyio.Event()
        self._logged: type[Exception] | None = None

    def want(self, seconds: float = WANTED_SECONDS) -> None:
        """Somebody wants to know, for so long."""
        self._wanted_until = max(self._wanted_until, anyio.current_time() + seconds)
        self._wanted.set()

    async def keep(self) -> None:
        """Look and rest until cancelled."""
        while True:
            await self._wanted.wait()
            await self._look_unharmed()
            self.first_look.set()
            await anyio.sleep(self._interval())
            if anyio.current_time() >= self._wanted_until:
                self._wanted, self.first_look = anyio.Event(), anyio.Event()

    async def _look_unharmed(self) -> None:
        """Look; an error that nobody foresaw is logged once with its traceback, and ends nothing."""
        try:
            await self._look()
            self._logged = None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other checks, the spool and the process go on
            if self._logged is not type(exc):
                _log.error("a health check met an internal error", exc_info=exc)
            self._logged = type(exc)


LOOK_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 0.7
"""How long a question waits for fresh facts: Kubernetes' default time-out of a probe is 1 s."""

Look = Callable[[], Awaitable[None]]


class PeriodicChecks:
    """The lookouts of one process. `looks` are the other things to look at, each some seconds' worth."""

    def __init__(self, board: SpoolState, checks: Checks, pulse: LoopLag, ping: Ping, *looks: Look) -> None:
        self._board, self._checks, self._beat_once = board, checks, pulse.beat
        registry = checks.registry
        self._pulse = PeriodicCheck(self._beat, lambda: 0.0)
        self._registry = PeriodicCheck(lambda: look_at_registry(ping, registry), lambda: registry_interval(registry))
        self._world = (self._registry, *(PeriodicCheck(look, lambda: LOOK_SECONDS) for look in looks))

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Keep all of them in tasks that run until they are cancelled."""
        for lookout in (self._pulse, *self._world):
            tasks.start_soon(lookout.keep)

    def want_pulse(self) -> None:
        """Somebody wants to know whether the event loop comes round, and nothing else."""
        self._pulse.want()

    async def refresh(self) -> None:
        """Somebody wants to know everything: wait, after a rest, until it has been looked at, but not for long."""
        self._want_all()
        with anyio.move_on_after(PATIENCE_SECONDS):
            for lookout in self._world:
                await lookout.first_look.wait()
        if not self._registry.first_look.is_set():
            self._checks.registry.fails(f"the registry has not answered within {PATIENCE_SECONDS} seconds")

    def job_started(self) -> None:
        """A job can keep the event loop from coming round."""
        self._pulse.want(BEAT_SECONDS)

    def job_ended(self, end: JobEnd) -> None:
        """What a job met with is looked at while it is fresh, so that `since` is when it happened."""
        if end.outcome is Outcome.DEFERRED:
            self._want_all()

    def _want_all(self) -> None:
        for lookout in (self._pulse, *self._world):
            lookout.want()

    async def _beat(self) -> None:
        await self._beat_once()
        self._checks.look()
        if self._board.running():
            self.job_started()
