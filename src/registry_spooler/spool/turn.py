"""A job's right to work: it holds the locks of all that it is about, among all spoolers on the directory.

A bundle is first locked by its name alone. When it has been read, its repositories are told to the other spoolers, in
the file of that lock, and locked as well. Nobody waits for a lock who holds one.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import orjson

from registry_spooler.spool.deaths import Deaths, begin_work, deaths_over, end_work
from registry_spooler.spool.entry import Entry
from registry_spooler.spool.identity import Identity
from registry_spooler.spool.lock import Locks, leave_note, read_note
from registry_spooler.spool.room import Room

_TOO_MANY_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})


class Turn:
    """One attempt's locks. All methods block for a moment; OSError when the spool cannot be written to."""

    def __init__(self, entry: Entry, room: Room) -> None:
        self._entry = entry
        self._room = room
        self._folder = room.layout.locks
        self._locks = Locks(self._folder)
        self._job = ""

    def begin(self) -> bool:
        """Lock what the entry is known to be about. False: another spooler works on some of it."""
        self._room.layout.check()
        return self._take(self._entry.lanes[:1]) and self._take(self._entry.lanes[1:])

    def heard(self) -> tuple[str, ...]:
        """The repositories of a bundle, as told by the spooler that has its lock; none when it has not told yet."""
        try:
            mark, repositories = orjson.loads(read_note(self._folder, self._entry.lanes[0]))
        except (ValueError, TypeError):
            return ()
        is_told = mark == self._entry.identity.mark and isinstance(repositories, list)
        return tuple(map(str, repositories)) if is_told else ()

    def tell(self, content: Identity, repositories: Iterable[str]) -> None:
        """Tell the others what the bundle is about."""
        with suppress(OSError):  # they wait until all of it is done
            leave_note(self._folder, self._entry.lanes[0], orjson.dumps([content.mark, sorted(repositories)]))

    def begin_work(self, content: Identity) -> Deaths:
        """Remember on the disk that this content is worked on. Return who has died over it."""
        self._job = begin_work(self._room.folder, self._entry.name, content.mark, alone=self._entry.alone)
        return deaths_over(self._room.layout.work, content.mark)

    def end(self) -> None:
        """Work on it no longer, and let all locks go."""
        if self._job:
            end_work(self._room.folder, self._job)
        self._locks.release()

    def _take(self, lanes: Iterable[str]) -> bool:
        try:
            return self._room.in_need(lambda: self._locks.try_take(lanes))
        except OSError as exc:
            if exc.errno in _TOO_MANY_FILES and self._entry.is_bundle:
                # Of more repositories than there may be open files. What keeps them in order are the queues.
                return True
            raise
