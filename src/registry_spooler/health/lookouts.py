"""All that is looked at for whoever asks, and who keeps it awake: questions, running jobs, jobs that met trouble.

An idle daemon that nobody asks has no timer here. What happened meanwhile is found out by the first question; what the
spool knows (the watch, whether it can be written to) bears the spool's own time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.abc

from registry_spooler.health.checks import Checks
from registry_spooler.health.lookout import Lookout
from registry_spooler.health.pulse import BEAT_SECONDS, Pulse
from registry_spooler.health.registry_watch import Ping, look_at_registry, registry_interval
from registry_spooler.spool import Board, JobEnd, Outcome

LOOK_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 0.7
"""How long a question waits for fresh facts: Kubernetes' default time-out of a probe is 1 s."""

Look = Callable[[], Awaitable[None]]


class Lookouts:
    """The lookouts of one process. `looks` are the other things to look at, each some seconds' worth."""

    def __init__(self, board: Board, checks: Checks, pulse: Pulse, ping: Ping, *looks: Look) -> None:
        self._board, self._checks, self._beat_once = board, checks, pulse.beat
        registry = checks.registry
        self._pulse = Lookout(self._beat, lambda: 0.0)
        self._registry = Lookout(lambda: look_at_registry(ping, registry), lambda: registry_interval(registry))
        self._world = (self._registry, *(Lookout(look, lambda: LOOK_SECONDS) for look in looks))

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
