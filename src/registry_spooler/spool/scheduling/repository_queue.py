"""The files of one repository, one after the other in the order of their arrival, and the job slots.

A bundle stands in the lanes of all its repositories. Which these are is known once it has been read; until then it is a
barrier: it may start, to be read, but nothing that came after it.

The one more is for quick jobs: what takes long there as well gives way when others wait, and does not come back to that
place. So a few archives that are endless work never keep the others from being pushed, and files that are pushed in a
moment do not wait for hours behind large ones.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from registry_spooler.spool.scheduling.job import Entry, Phase

Item = TypeVar("Item", bound=tuple[Any, ...])


class Heap(Generic[Item]):
    """Tuples, the smallest first."""

    def __init__(self) -> None:
        self._heap: list[Item] = []
        self._held: set[Item] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Item]:
        """All of them, in no order."""
        return iter(self._heap)

    @property
    def first(self) -> Item:
        """The smallest."""
        return self._heap[0]

    def push(self, item: Item) -> None:
        """Put it in, unless it is there already."""
        if item not in self._held:
            self._held.add(item)
            heapq.heappush(self._heap, item)

    def pop(self) -> Item:
        """Take the smallest out."""
        item = heapq.heappop(self._heap)
        self._held.remove(item)
        return item

    def clear(self) -> None:
        """Forget all of them."""
        self._heap.clear()
        self._held.clear()


ORDER = attrgetter("order")


@dataclass(slots=True)
class RepositoryQueue:
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
            if not entry.non_blocking:
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
    return entry.alone or (entry.phase is Phase.DEFERRED and entry.non_blocking)


class RepositoryQueues:
    """All lanes that have files in them."""

    def __init__(self) -> None:
        self._lanes: dict[str, RepositoryQueue] = {}
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
        return all(self._lanes[name].is_turn_of(entry) for name in entry.lanes) and not self.is_blocked(entry)

    def is_blocked(self, entry: Entry) -> bool:
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
            bisect.insort(self._lanes.setdefault(name, RepositoryQueue()).entries, entry, key=ORDER)
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
