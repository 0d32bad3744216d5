"""What the probes ask: each check with its state, and the tasks that keep it fresh.

`/live` asks only for what a restart can fix: the event loop and the watch. `/ready` also asks for the world around: a
registry that is down or a spool that cannot be written to makes the pod unready and never restarts it. Little free
space is shown and decides nothing: the spooler works on within its reserve, and an unready pod would take the registry
beside it out of its Service.

An event loop that is blocked for good answers no probe at all, and the kubelet's time-out ends the pod. One that is
blocked again and again does answer in between; this is where it shows.

What has to be asked is asked by periodic tasks (`check_periodically`); a probe is answered from memory. Times are
wall-clock seconds since the epoch.
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


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to be so, as its condition was found last."""

    name: str
    condition: Condition
    good: str
    """What to say when it holds."""
    unknown: str = ""
    """What to say before anybody has found out."""
    is_advice: bool = False
    """Whether it is only shown, without a say in the probe's answer."""
    started: float = field(default_factory=time.time)

    @property
    def passing(self) -> bool:
        """Return whether it is so."""
        return self.condition.holds

    @property
    def since(self) -> float:
        """Return since when; from the start, while nobody has found out."""
        return self.started if self.condition.since is None else self.condition.since

    @property
    def detail(self) -> str:
        """Return what is the case, in a sentence."""
        return self.good if self.passing else self.condition.error or self.unknown

    def to_json(self) -> dict[str, Any]:
        """Return it as the probes answer it."""
        state = "ok" if self.passing else "warning" if self.is_advice else "failing"
        return {"state": state, "since": rfc3339(self.since), "detail": self.detail}


class Checks:
    """The checks of one process: `live` is what `/live` and `/healthz` ask for, `ready` what `/ready` asks besides."""

    def __init__(self, state: SpoolState, lag: LoopLag, volume: Volume) -> None:
        self._lag, self._volume = lag, volume
        self.registry = Check("registry", state.registry, "the registry answers", "the registry has not been asked yet")
        self.space = Check("spool_space", Condition(), "the volume has room", is_advice=True)
        self.live = (
            Check("event_loop", Condition(), "the event loop responds"),
            Check("watch", state.watching, "the spool directory is watched", "it is not watched yet"),
        )
        self.ready = (
            Check("first_scan", state.scanned, "the first scan is done", "the first scan is not done"),
            self.registry,
            Check("spool_writable", state.writable, "the spool can be written to", "that has not been tried yet"),
            self.space,
        )

    @property
    def is_live(self) -> bool:
        """Return whether nobody need restart this process."""
        return all(check.passing for check in self.live)

    @property
    def is_ready(self) -> bool:
        """Return whether a file that is dropped now will be pushed now."""
        return self.is_live and all(check.passing or check.is_advice for check in self.ready)

    def update(self) -> None:
        """Bring those up to date that are found out here; nothing is asked that could wait."""
        for check, trouble in (
            (self.live[0], self._lag.trouble),
            (self.space, self._volume.error or self._volume.capacity.shortage),
        ):
            check.condition.set(not trouble, trouble)


BEAT_SECONDS: Final = 2.0
STALL_SECONDS: Final = 5.0
"""As long as the probes in the manifests wait for an answer. Nothing of ours keeps the loop for a hundredth of it."""
HELD_SECONDS: Final = 10.0
"""A stall shows for so long, so that the probe after it sees it."""


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
        """Return what is wrong, as a sentence; empty when nothing is."""
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
MEASURE_SECONDS: Final = 10.0


class RegistryPing:
    """Asks whether the registry answers, and notes it in a condition of the spool's state."""

    def __init__(self, ping: Ping, condition: Condition) -> None:
        self._ping, self._condition = ping, condition

    @property
    def interval_seconds(self) -> float:
        """Return when to ask again, from now."""
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
    """A directory's free space as it was measured last. Loop thread only."""

    def __init__(self, directory: Path, limit_bytes: int | None = None) -> None:
        self._directory, self._limit_bytes = directory, limit_bytes
        self.capacity = Capacity()
        self.error = ""
        """Why it could not be measured last; empty when it could."""

    async def measure(self) -> None:
        """Measure it once."""
        try:
            self.capacity = await in_thread(measure, self._directory, self._limit_bytes)
            self.error = ""
        except OSError as exc:
            self.error = f"the volume cannot be looked at: {exc.strerror or exc}"


_log: Final = logging.getLogger("registry_spooler.health")


async def check_periodically(check: Callable[[], Awaitable[None]], interval: Callable[[], float]) -> None:
    """Check at once and then again, `interval()` seconds after the last check ended, until cancelled.

    An unexpected error is logged once with its traceback, and ends nothing.
    """
    logged: type[Exception] | None = None
    while True:
        try:
            await check()
            logged = None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other checks, the spool and the process go on
            if logged is not type(exc):
                _log.error("a health check met an internal error", exc_info=exc)
            logged = type(exc)
        await anyio.sleep(interval())
