"""All checks, and which probe asks for which.

`/live` asks only for what a restart can mend: the event loop and the watch. `/ready` asks also for the world around: a
registry that is down or a spool that cannot be written to makes the pod unready and never restarts it. Little room is
told and decides nothing: the spooler works on within its reserve, and an unready pod would take the registry beside it
out of its Service.
"""

from __future__ import annotations

from registry_spooler.health.check import Check
from registry_spooler.health.pulse import Pulse
from registry_spooler.health.volume import Volume
from registry_spooler.spool import Board, Fact


class Checks:
    """The checks of one process, brought up to date by `look`."""

    def __init__(self, board: Board, pulse: Pulse, volume: Volume) -> None:
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


def _take_over(check: Check, fact: Fact, good: str, unknown: str) -> None:
    if fact.holds:
        check.passes(good, since=fact.since)
    else:
        check.fails(fact.error or unknown, since=fact.since)
