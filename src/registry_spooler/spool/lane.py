"""Lanes: the files of one repository, that run one after the other in the order of their arrival.

A bundle stands in the lanes of all its repositories. Which these are is known once it has been read; until then it is a
barrier: it may start, to be read, but nothing that came after it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from registry_spooler.spool.entry import Entry, Phase

ORDER = attrgetter("order")


@dataclass(slots=True)
class Lane:
    """The files of one repository, in order."""

    entries: list[Entry] = field(default_factory=list)
    running: Entry | None = None

    def next(self, now: float) -> tuple[Entry | None, float | None]:
        """The file whose turn it is, and when to ask again (which may be earlier than that file ends)."""
        if self.running is not None:
            return None, None
        again: float | None = None
        for entry in self.entries:
            if entry.alone:
                continue
            if entry.phase is Phase.RUNNING:
                break  # a bundle that has been read, and is about to be put back
            if entry.phase is Phase.WAITING or entry.due <= now:
                return entry, again
            again = entry.due if again is None else min(again, entry.due)
            if not entry.lets_pass:
                break
        return None, again

    def is_turn_of(self, entry: Entry) -> bool:
        """May it, which runs already, go on? What is put off and lets it pass does so even if it is due again."""
        if self.running is not None and self.running is not entry:
            return False
        before = self.entries[: self.entries.index(entry)]
        return all(map(_is_passed, before))


def _is_passed(entry: Entry) -> bool:
    """May those behind it go first for now?"""
    return entry.alone or (entry.phase is Phase.DEFERRED and entry.lets_pass)


class Lanes:
    """All lanes that have files in them."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._unread: list[Entry] = []

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._lanes))

    def next(self, name: str, now: float) -> tuple[Entry | None, float | None]:
        """The first file of a lane that may start as far as that lane goes, and when to ask again."""
        lane = self._lanes.get(name)
        return lane.next(now) if lane is not None else (None, None)

    def is_first(self, entry: Entry, now: float) -> bool:
        """Is it next in all its lanes?"""
        return all(self._lanes[name].next(now)[0] is entry for name in entry.lanes)

    def is_turn_of(self, entry: Entry) -> bool:
        """May an entry that runs already go on in all its lanes?"""
        return all(self._lanes[name].is_turn_of(entry) for name in entry.lanes) and not self.is_barred(entry)

    def is_barred(self, entry: Entry) -> bool:
        """Did a bundle arrive before it that nobody has read yet?"""
        for bundle in self._unread:
            if bundle.order >= entry.order:
                break
            if not _is_passed(bundle):
                return True
        return False

    def heads(self) -> Iterator[Entry]:
        """The oldest file of each lane, of those that do not run."""
        for lane in self._lanes.values():
            yield from (entry for entry in lane.entries[:2] if entry.phase is not Phase.RUNNING)

    def enter(self, entry: Entry) -> None:
        """Put it into its lanes, at its place."""
        for name in entry.lanes:
            bisect.insort(self._lanes.setdefault(name, Lane()).entries, entry, key=ORDER)
        if entry.is_unread:
            bisect.insort(self._unread, entry, key=ORDER)

    def leave(self, entry: Entry) -> None:
        """Take it out of its lanes."""
        for name in entry.lanes:
            lane = self._lanes[name]
            lane.entries.remove(entry)
            if not lane.entries:
                del self._lanes[name]
        if entry.is_unread:
            self._unread.remove(entry)

    def start(self, entry: Entry) -> None:
        """It runs, and nothing else in its lanes."""
        for name in entry.lanes:
            self._lanes[name].running = entry

    def stop(self, entry: Entry) -> None:
        """It does not run any more."""
        for name in entry.lanes:
            if self._lanes[name].running is entry:
                self._lanes[name].running = None
