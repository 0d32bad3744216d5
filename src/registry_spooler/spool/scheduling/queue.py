"""The queue: which file's turn it is. A state machine in plain code, without a loop, a clock or a disk.

Files of one repository run one after the other, in the order of their arrival; different repositories run side by
side, up to a limit. A file that is deferred keeps those behind it waiting, unless it is `non_blocking`. A bundle has
the spool to itself: it waits for all that came before it, and all that came after waits for it.
Trouble that all jobs share (the registry does not answer, the disk is full) holds the whole queue: nothing starts until
a ping says that the registry answers, or, where there is nothing to ask, until a time. Then the oldest go first.
What spoolers have died over is set apart: it starts when nothing else may, and nothing starts while it runs.

Every method takes the time (monotonic clock, seconds) and changes state without waiting for anything; the caller
starts what `start_next` returns and reports back exactly once: `finish`, `defer`, `put_back` or `leave_elsewhere`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from registry_spooler.spool.directory.deaths import NO_DEATHS
from registry_spooler.spool.directory.files import Identity
from registry_spooler.spool.scheduling.job import Arrival, Entry, Phase, Reason
from registry_spooler.spool.scheduling.outcome import WITHOUT_ANSWER
from registry_spooler.spool.scheduling.repository_queue import ORDER, Heap, RepositoryQueues, Slots

ALONE_SECONDS: Final = 60.0
"""What has not killed the spooler for so long does not keep the others waiting."""

UNPINGED_SECONDS: Final = 300.0
"""After so long files are tried though the ping fails: a registry may take pushes and not answer the ping."""


@dataclass(slots=True)
class _Hold:
    """The whole queue waits for the same trouble to end."""

    reason: Reason
    since: float
    until: float
    """When to ask whether it is over; without a ping, when it counts as over."""
    pings: bool
    is_asking: bool = False
    was_confirmed: bool = False
    """Whether a ping has failed too. If not, the trouble may be with one file alone."""


def _is_same(one: Reason, other: Reason) -> bool:
    """Return whether both are the same trouble: what keeps the registry from answering is, however it shows."""
    return one is other or (one in WITHOUT_ANSWER and other in WITHOUT_ANSWER)


class Queue:
    """The files that wait, run, or wait for another try."""

    def __init__(self, limit: int) -> None:
        self._slots = Slots(limit)
        self._entries: dict[str, Entry] = {}
        self._arrivals = itertools.count(1)
        self._repositories = RepositoryQueues()
        self._ready: Heap[tuple[tuple[int, int], str]] = Heap()  # what has become stale in these is skipped
        self._timers: Heap[tuple[float, str]] = Heap()
        self._apart: dict[str, Entry] = {}  # those that go last and alone
        self._places: dict[str, tuple[int, int]] = {}  # of files that have arrived anew while their job runs
        self._latest_ns = 0  # of the arrivals that events have told of
        self._hold: _Hold | None = None
        self._phases: Counter[Phase] = Counter()
        self.shared_failures = 0
        """How often in a row shared trouble was met, or a ping failed."""

    # What is there

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Entry | None:
        """Return the file of that name."""
        return self._entries.get(key)

    def count(self, phase: Phase) -> int:
        """Return how many files are in that phase."""
        return self._phases[phase]

    def in_phase(self, phase: Phase, limit: int) -> list[Entry]:
        """Return the oldest files in that phase."""
        return heapq.nsmallest(limit, (entry for entry in self._entries.values() if entry.phase is phase), key=ORDER)

    def oldest(self) -> Entry | None:
        """Return the file that arrived first, of those that do not run."""
        return min(self._repositories.heads(), key=ORDER, default=None)

    # Files come and go

    def arrive(self, entry: Entry, now: float, *, event: bool) -> None:
        """A file is there: new, or known and perhaps another one by now.

        `event`: somebody has just put it there or written to it; else a scan has found it.
        """
        entry.seen = now
        known = self._entries.get(entry.key)
        if known is None:
            entry.still_since = now
            entry.arrived_ns, entry.arrivals = self._place(entry, event=event)
            self._entries[entry.key] = entry
            self._phases[entry.phase] += 1
            self._insert(entry, now)
        elif known.phase is Phase.RUNNING:
            if event:
                known.arrived_again = entry.arrival
                self._places[entry.key] = self._place(entry, event=True)
        else:
            self._update(known, entry.identity, entry.arrival, now, event=event)

    def vanish(self, key: str, now: float) -> None:
        """A file is gone. One that runs is left to find that out by itself."""
        self._places.pop(key, None)
        entry = self._entries.get(key)
        if entry is not None and entry.phase is not Phase.RUNNING:
            self._remove(entry, now)

    def keep_only(self, keys: Iterable[str], now: float, *, seen_before: float) -> None:
        """A scan that started at `seen_before` has found these: forget the others, but not what came later."""
        there = set(keys)
        for entry in list(self._entries.values()):
            if entry.key not in there and not entry.is_aside and entry.seen < seen_before:
                self.vanish(entry.key, now)

    # Jobs start and end

    def start_next(self, now: float) -> list[Entry]:
        """Return the files whose turn it is; they are RUNNING from here on."""
        while self._timers and self._timers.first[0] <= now:
            self._refresh(self._timers.pop()[1], now)
        started: list[Entry] = []
        if self._hold is not None and not self._hold.pings and now >= self._hold.until:
            self._hold = None
        if self._hold is not None or self._alone_until(now) is not None:
            return started
        while not self._slots.are_full:
            entry = self._take_ready(now)
            if entry is None:
                break
            self._start(entry, now)
            started.append(entry)
        if self._slots.has_one_more(now) and (quick := self._take_quick(now)) is not None:
            self._start(quick, now)
            started.append(quick)
        if not self._phases[Phase.RUNNING] and (last := self._take_alone(now)) is not None:
            self._start(last, now)
            started.append(last)
        return started

    def give_way(self, now: float) -> Entry | None:
        """Return the job that is to be cancelled and then `put_back`: it takes long in the place for quick ones."""
        overdue = self._slots.overdue(now) if self._hold is None else None
        if overdue is None or (waiting := self._take_quick(now)) is None:
            return None
        self._refresh(waiting.repository, now)
        overdue.gave_way = True
        return overdue

    def next_due(self, now: float) -> float | None:
        """Return when `start_next` may have something again if nothing happens before, or None."""
        if (held := self._hold) is not None:
            return None if held.is_asking else max(now, held.until)
        if (alone_until := self._alone_until(now)) is not None:
            return alone_until
        times = [self._timers.first[0]] if self._timers else []
        if self._slots.are_full:
            change = self._slots.next_change(now)
            times += [change] if change is not None and (times or self._ready) else []
            return max(now, min(times)) if times else None
        if self._apart and not self._phases[Phase.RUNNING]:
            times.append(min(entry.due for entry in self._apart.values()))
        return max(now, min(times)) if times else None

    def finish(self, entry: Entry, now: float) -> None:
        """The job is done, has failed or has found no file: the queue forgets it."""
        self._repositories.stop(entry)
        self._slots.leave(entry)
        self._remove(entry, now)

    def put_back(self, entry: Entry, now: float) -> None:
        """The job has given way, and waits again."""
        self._stop(entry, Phase.WAITING, 0.0, now)

    def set_apart(self, entry: Entry, now: float) -> None:
        """The file goes last and alone from here on; its job has not begun."""
        entry.alone = True
        self._apart[entry.key] = entry
        self._stop(entry, Phase.WAITING, 0.0, now)

    def defer(self, entry: Entry, now: float, *, due: float, reason: Reason, error: str, non_blocking: bool) -> None:
        """The job is to be tried again at `due`."""
        entry.reason, entry.error, entry.non_blocking = reason, error, non_blocking
        entry.failures += 1
        self._stop(entry, Phase.DEFERRED, due, now)

    def leave_elsewhere(self, entry: Entry, now: float, *, due: float) -> None:
        """Another spooler holds the repository or the spool: look again at `due`."""
        entry.non_blocking = False
        self._stop(entry, Phase.ELSEWHERE, due, now)

    def hold(self, reason: Reason, now: float, *, until: float, pings: bool = False) -> float:
        """A job met trouble that all others would meet: none starts before `until`, or with `pings` before `pinged`.

        Jobs that ran side by side meet it together: that counts once. Returns until when the queue is held.
        """
        held = self._hold
        if held is None or not _is_same(held.reason, reason):
            self.shared_failures += 1
            held = self._hold = _Hold(reason, now, until, pings)
        held.reason = reason
        return held.until

    def release(self, now: float) -> None:
        """The trouble is over. Whatever waited for that goes now, unless it may have been one file's own."""
        held, self._hold, self.shared_failures = self._hold, None, 0
        if held is None or (held.pings and not held.was_confirmed):
            return
        for entry in self._deferred_for(held):
            entry.due = entry.next_try = 0.0
            self._refresh(entry.repository, now)

    def wants_ping(self, now: float) -> bool:
        """Return whether to ask now if the registry answers; `pinged` follows."""
        held = self._hold
        if held is None or not held.pings or held.is_asking or now < held.until:
            return False
        held.is_asking = True
        return True

    def pinged(self, now: float, *, is_up: bool, until: float, next_try: float) -> None:
        """The registry answers, or does not, and is to be asked again at `until`.

        `next_try` is the same moment in seconds since the epoch.
        """
        held = self._hold
        if held is None or not held.is_asking:
            return
        held.is_asking = False
        held.was_confirmed = held.was_confirmed or not is_up
        if is_up or now - held.since >= UNPINGED_SECONDS:
            self.release(now)
            return
        self.shared_failures += 1
        held.until = until
        for entry in self._deferred_for(held):
            entry.next_try = max(entry.next_try, next_try)

    @property
    def held_for(self) -> Reason | None:
        """Return why the whole queue waits, when it does."""
        return self._hold.reason if self._hold is not None else None

    # Inside

    def _place(self, entry: Entry, *, event: bool) -> tuple[int, int]:
        """The place of a file that has arrived: after all that events have told of before, whatever the clock says.

        What a scan has found goes by the file system's clock.
        """
        if not event:
            return self._places.pop(entry.key, None) or (entry.identity.changed_ns, next(self._arrivals))
        self._latest_ns = max(self._latest_ns, entry.identity.changed_ns)
        return self._places.pop(entry.key, None) or (self._latest_ns, next(self._arrivals))

    def _alone_until(self, now: float) -> float | None:
        """Return until when what runs alone stays so; None when nothing does, or not any longer."""
        running = (entry.due for entry in self._apart.values() if entry.phase is Phase.RUNNING)
        return next((due for due in running if due > now), None)

    def _take_alone(self, now: float) -> Entry | None:
        """When nothing runs and nothing else may start: a file that goes last and alone."""
        ready = [entry for entry in self._apart.values() if entry.phase is Phase.WAITING or entry.due <= now]
        if not ready:
            return None
        return min(ready, key=lambda entry: (entry.failures, entry.order))

    def _take_ready(self, now: float) -> Entry | None:
        """The oldest that may start. What is dropped here is noted again when what keeps it back has changed."""
        while self._ready:
            order, name = self._ready.pop()
            entry = self._repositories.next(name, now)[0]
            if entry is None or entry.order < order:
                continue
            if entry.order > order:
                self._ready.push((entry.order, name))
            elif self._repositories.is_blocked(entry):
                self._ready.push((order, name))  # and so are all others
                break
            else:
                return entry
        return None

    def _take_quick(self, now: float) -> Entry | None:
        """The oldest that may start, of those that have not taken long before; if any."""
        passed: list[Entry] = []
        found: Entry | None = None
        while found is None and (entry := self._take_ready(now)) is not None:
            if entry.gave_way:
                passed.append(entry)
            else:
                found = entry
        for entry in passed:
            self._refresh(entry.repository, now)
        return found

    def _deferred_for(self, hold: _Hold) -> Iterator[Entry]:
        for entry in self._repositories.put_off:
            if entry.phase is Phase.DEFERRED and entry.reason is not None and _is_same(entry.reason, hold.reason):
                yield entry

    def _start(self, entry: Entry, now: float) -> None:
        if entry.alone:
            entry.due = now + ALONE_SECONDS
        self._set_phase(entry, Phase.RUNNING)
        self._slots.take(entry, now)
        self._repositories.start(entry)
        entry.arrived_again = None

    def _stop(self, entry: Entry, phase: Phase, due: float, now: float) -> None:
        self._repositories.stop(entry)
        self._slots.leave(entry)
        entry.due = due
        self._set_phase(entry, phase)
        self._refresh(entry.repository, now)

    def _update(self, entry: Entry, identity: Identity, arrival: Arrival, now: float, *, event: bool) -> None:
        changed = identity != entry.identity
        if not entry.identity.same_inode(identity) or arrival is Arrival.CLOSED:
            # A rename of the very file that is known may be our own, giving it back its name: it does not say
            # that the file is complete.
            entry.arrival = arrival
        elif not entry.identity.same_content(identity):
            entry.arrival = Arrival.FOUND  # whatever was told of it was told of another content
        if entry.identity.same_content(identity):
            self._places.pop(entry.key, None)
            entry.identity = identity  # a change of mode, owner or links is no arrival
        else:
            self._replace(entry, identity, now, event=event)
        entry.seen = now
        if (changed or event) and entry.phase is Phase.DEFERRED:
            # New content, or somebody's wish to see it tried: at once, whatever the back-off says.
            entry.failures = 0
            self._set_phase(entry, Phase.WAITING)
        self._refresh(entry.repository, now)

    def _replace(self, entry: Entry, identity: Identity, now: float, *, event: bool) -> None:
        """The name has another content: it is as good as new."""
        self._repositories.leave(entry)
        entry.identity, entry.still_since = identity, now
        entry.given_back = False
        entry.attempts, entry.deaths = 0, NO_DEATHS
        entry.alone = entry.gave_way = False
        self._apart.pop(entry.key, None)
        entry.arrived_ns, entry.arrivals = self._place(entry, event=event)
        self._repositories.enter(entry)
        self._refresh(entry.repository, now)

    def _insert(self, entry: Entry, now: float) -> None:
        self._repositories.enter(entry)
        self._refresh(entry.repository, now)

    def _remove(self, entry: Entry, now: float) -> None:
        del self._entries[entry.key]
        self._phases[entry.phase] -= 1
        self._apart.pop(entry.key, None)
        self._repositories.leave(entry)
        self._refresh(entry.repository, now)

    def _set_phase(self, entry: Entry, phase: Phase) -> None:
        self._phases[entry.phase] -= 1
        self._phases[phase] += 1
        entry.phase = phase
        self._repositories.note_phase(entry)

    def _refresh(self, name: str, now: float) -> None:
        """Note when the repository has something to start."""
        entry, again = self._repositories.next(name, now)
        if entry is not None:
            self._ready.push((entry.order, name))
        if again is not None:
            self._timers.push((again, name))
