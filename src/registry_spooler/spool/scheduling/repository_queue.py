"""The files of one repository, one after the other in the order of their arrival, and the job slots.

A bundle has the spool to itself: it waits for all that came before it, and all that came after waits for it.

The one more is for quick jobs: what takes long there as well gives way when others wait, and does not come back to that
place. So a few archives that are endless work never keep the others from being pushed, and files that are pushed in a
moment do not wait for hours behind large ones.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
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
        """Return the file whose turn it is, and when to ask again (which may be earlier than that file ends)."""
        if self.running is not None:
            return None, None
        again: float | None = None
        for entry in self.entries:
            if entry.alone:
                continue
            if entry.phase is Phase.WAITING or entry.due <= now:
                return entry, again
            again = entry.due if again is None else min(again, entry.due)
            if not entry.non_blocking:
                break
        return None, again


def _is_passed(entry: Entry) -> bool:
    """Return whether those behind it may go first for now."""
    return entry.alone or (entry.phase is Phase.DEFERRED and entry.non_blocking)


class RepositoryQueues:
    """The queues of all repositories that have files."""

    def __init__(self) -> None:
        self._queues: dict[str, RepositoryQueue] = {}
        self._bundles: list[Entry] = []
        self._running: set[Entry] = set()
        self.put_off: set[Entry] = set()
        """Those in a phase that ends at a certain time."""

    def next(self, repository: str, now: float) -> tuple[Entry | None, float | None]:
        """The file of a repository whose turn it is, if no bundle forbids it, and when to ask again."""
        queue = self._queues.get(repository)
        return queue.next(now) if queue is not None else (None, None)

    def is_blocked(self, entry: Entry) -> bool:
        """Return whether a bundle is in its way, or, for a bundle, anything that runs or came before it.

        What came before a bundle and is neither running nor put off, nor behind such a file, is to be asked about
        before the bundle is.
        """
        if self._running and (entry.is_bundle or any(running.is_bundle for running in self._running)):
            return True
        if entry.is_bundle:
            return any(other.order < entry.order and not _is_passed(other) for other in self.put_off)
        earlier = itertools.takewhile(lambda bundle: bundle.order < entry.order, self._bundles)
        return not all(map(_is_passed, earlier))

    def heads(self) -> Iterator[Entry]:
        """Yield the oldest file of each repository, of those that do not run."""
        for queue in self._queues.values():
            yield from (entry for entry in queue.entries[:2] if entry.phase is not Phase.RUNNING)

    def enter(self, entry: Entry) -> None:
        """Put it into its repository's queue, at its place."""
        queue = self._queues.setdefault(entry.repository, RepositoryQueue())
        bisect.insort(queue.entries, entry, key=ORDER)
        if entry.is_bundle:
            bisect.insort(self._bundles, entry, key=ORDER)

    def leave(self, entry: Entry) -> None:
        """Take it out of its repository's queue."""
        queue = self._queues[entry.repository]
        queue.entries.remove(entry)
        if not queue.entries:
            del self._queues[entry.repository]
        if entry.is_bundle:
            self._bundles.remove(entry)
        self.put_off.discard(entry)

    def note_phase(self, entry: Entry) -> None:
        """Its phase has changed."""
        if entry.phase in (Phase.DEFERRED, Phase.ELSEWHERE):
            self.put_off.add(entry)
        else:
            self.put_off.discard(entry)

    def start(self, entry: Entry) -> None:
        """It runs, and nothing else of its repository."""
        self._queues[entry.repository].running = entry
        self._running.add(entry)

    def stop(self, entry: Entry) -> None:
        """It does not run any more."""
        self._queues[entry.repository].running = None
        self._running.discard(entry)


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
        return None if latest.gave_way else latest

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
