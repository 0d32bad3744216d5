"""Keeps this run's room: has one once the spool can be written to, tries it at times, clears up after the dead."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from registry_spooler.spool import journal
from registry_spooler.spool.board import Board
from registry_spooler.spool.deaths import end_all_work
from registry_spooler.spool.ending import said
from registry_spooler.spool.entry import Arrival, Clock, Entry, parse_name
from registry_spooler.spool.identity import Identity, OddEntry, look_at
from registry_spooler.spool.lock import clear_locks
from registry_spooler.spool.queue import Queue
from registry_spooler.spool.recovery import open_recovered_room, recover
from registry_spooler.spool.room import Room
from registry_spooler.threads import in_thread

RECOVER_SECONDS: Final = 2.0
"""After a file was taken away, when to look whether whoever did so died over it; below the 5 s for a take-over."""
LEAVE_SECONDS: Final = 1.0
"""Enough to remove a directory in."""
_LOST: Final = frozenset({errno.ENOENT, errno.ESTALE})
"""The directory, or a folder of the spooler's own, was removed or replaced."""
TROUBLE_SECONDS: Final = 5.0
"""How often to try again, at the least, when the directory is gone or cannot be written to."""


class Housekeeper:
    """Keeps the room of one run; `tend` is called when `due` says so."""

    def __init__(self, directory: Path, queue: Queue, board: Board, *, clock: Clock, wake: Callable[[], None]) -> None:
        self.room: Room | None = None
        """This run's folder, while the spool can be written to."""
        self._directory = directory
        self._queue = queue
        self._board = board
        self._clock = clock
        self._wake = wake
        self._retired: list[Room] = []
        self._given_back = set[tuple[str, str]]()
        self._recover_at = self._probe_at = 0.0
        self._failures = 0

    @property
    def due(self) -> float:
        """When to tend the room again."""
        return self._probe_at if self.room is None else min(self._probe_at, self._recover_at)

    def retire(self) -> None:
        """The directory is gone, or another one: the next one gets a room of its own. Jobs may use the old one."""
        if self.room is not None:
            self._retired.append(self.room)
        self.room = None
        self._recover_at = self._probe_at = 0.0
        self._failures = 0

    def leave(self) -> float:
        """The folder of all rooms is gone: leave ours now, and look when the next is due, which is returned.

        When the whole directory is being removed, its end is told only once nothing in it is open any more; and
        whoever removes it shall not find new folders in it.
        """
        self.retire()
        self._probe_at = self._clock() + LEAVE_SECONDS
        return self._probe_at

    async def close_retired(self) -> None:
        """Clear up the rooms that were left; to be called when no job uses them any more."""
        while self._retired:
            await in_thread(self._retired.pop().close)

    def file_left(self) -> None:
        """Somebody has taken a file out of the spool: was it a spooler that died over it?"""
        self._recover_at = min(self._recover_at, self._clock() + RECOVER_SECONDS)

    def suspect(self, error: str) -> None:
        """A job could not write to the spool: find out whether that is so for all, and when it heals."""
        if self._board.writable.set(False, error):
            journal.trouble(error)
        self._probe_at = self._clock() + 1.0

    async def tend(self, *, rest_until: float) -> None:
        """Have a room that can be written to, and nothing of the dead in the others; all well, until `rest_until`."""
        now = self._clock()
        try:
            if now >= self._probe_at:
                await self._probe()
                self._probe_at = rest_until
            if self.room is not None and now >= self._recover_at:
                self._recover_at = rest_until
                await self._recover(self.room)
        except OSError as exc:
            self._not_writable(exc)

    def was_given_back(self, name: str, identity: Identity) -> bool:
        """Return whether a dead run had set this content aside under this name."""
        return (name, identity.mark) in self._given_back

    async def forgive(self) -> None:
        """The spooler has been asked to stop: whatever ends it from here on is not the fault of what it works on."""
        for room in (*self._retired, self.room):
            if room is not None:
                await in_thread(end_all_work, room.folder)

    async def collect(self, room: Room) -> None:
        """Make jobs of the files that lost their names."""
        while room.displaced:
            displaced = room.displaced.pop(0)
            with suppress(OSError, OddEntry):
                identity = await in_thread(look_at, displaced.folder, displaced.name)
                entry = Entry(
                    name=displaced.name,
                    parsed=parse_name(displaced.name),
                    identity=identity,
                    arrival=Arrival.FOUND,
                    aside=displaced,
                )
                self._queue.arrive(entry, self._clock(), event=False)
        self._wake()

    async def _probe(self) -> None:
        if self.room is None:
            # What the dead have worked on is known before the first job starts.
            room = await in_thread(open_recovered_room, self._directory, self._given_back)
            self._recover_at = self._clock() + RECOVER_SECONDS
            try:
                with suppress(OSError):
                    await in_thread(clear_locks, room.layout.locks)
                await self.collect(room)
            except BaseException:  # cancelled before it is in use
                self._retired.append(room)
                raise
            self.room = room
            self._wake()
        else:
            await in_thread(self.room.probe)
        self._failures = 0
        was_known = self._board.writable.since is not None
        if self._board.writable.set(True) and was_known:
            journal.recovered("the spool directory can be written to again")

    async def _recover(self, room: Room) -> None:
        if await in_thread(recover, room):
            self.file_left()  # live spoolers hold files aside: are they still alive when those should be back?
        await self.collect(room)

    def _not_writable(self, error: OSError) -> None:
        failures = self._failures + 1
        if error.errno in _LOST:
            self.retire()
        self._failures = failures
        self._probe_at = self._recover_at = self._clock() + min(0.2 * 2**failures, TROUBLE_SECONDS)
        if self._board.writable.set(False, f"the spool directory cannot be written to: {said(error)}"):
            journal.trouble(self._board.writable.error)
