"""The queue: which file's turn it is. A state machine in plain code, without a loop, a clock or a disk.

Files of one repository (a lane) run one after the other, in the order of their arrival; different lanes run side by
side, up to a limit. A file that is deferred keeps those behind it in its lane waiting, unless it `lets_pass`.
Trouble that all jobs share (the registry does not answer, the disk is full) holds the whole queue: at each end of the
waiting one job goes ahead, and the first one that gets through releases the rest.

Every method takes the time (monotonic clock, seconds) and changes state without waiting for anything; the caller
starts what `start_next` returns and reports back exactly once: `finish`, `defer` or `leave_elsewhere`.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from registry_spooler.spool.entry import Arrival, Entry, Phase
from registry_spooler.spool.identity import Identity
from registry_spooler.spool.job import Reason

_ORDER = attrgetter("order")


@dataclass(slots=True)
class _Lane:
    """The files of one repository, in order."""

    name: str
    entries: list[Entry] = field(default_factory=list)
    running: Entry | None = None

    def next(self, now: float) -> tuple[Entry | None, float | None]:
        """The file whose turn it is, and when to ask again (which may be earlier than that file ends)."""
        if self.running is not None:
            return None, None
        again: float | None = None
        for entry in self.entries:
            if entry.phase is Phase.WAITING or entry.due <= now:
                return entry, again
            again = entry.due if again is None else min(again, entry.due)
            if not entry.lets_pass:
                break
        return None, again


@dataclass(slots=True)
class _Hold:
    """The whole queue waits for the same trouble to end."""

    reason: Reason
    until: float
    patience: float
    """How long a job that was sent ahead may take before another one is sent, seconds."""
    scout: Entry | None = None
    """The job that was sent ahead."""


class Queue:
    """The files that wait, run, or wait for another try."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[str, Entry] = {}
        self._lanes: dict[str, _Lane] = {}
        self._ready: list[tuple[tuple[int, str], str]] = []  # heaps; what has become stale in them is skipped
        self._timers: list[tuple[float, str]] = []
        self._urgent: set[str] = set()
        self._hold: _Hold | None = None
        self._phases: Counter[Phase] = Counter()
        self.shared_failures = 0
        """How often in a row the trouble that holds the queue was met."""

    # What is there

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> Entry | None:
        """The file of that name."""
        return self._entries.get(key)

    def count(self, phase: Phase) -> int:
        """How many files are in that phase."""
        return self._phases[phase]

    def in_phase(self, phase: Phase, limit: int) -> list[Entry]:
        """The oldest files in that phase."""
        return heapq.nsmallest(limit, (entry for entry in self._entries.values() if entry.phase is phase), key=_ORDER)

    def oldest(self) -> Entry | None:
        """The file that arrived first, of those that do not run."""
        entries = (
            entry for lane in self._lanes.values() for entry in lane.entries[:2] if entry.phase is not Phase.RUNNING
        )
        return min(entries, key=_ORDER, default=None)

    # Files come and go

    def arrive(self, entry: Entry, now: float, *, event: bool) -> None:
        """A file is there: new, or known and perhaps another one by now.

        `event`: somebody has just put it there or written to it; else a scan has found it.
        """
        entry.seen = now
        known = self._entries.get(entry.key)
        if known is None:
            self._entries[entry.key] = entry
            self._phases[entry.phase] += 1
            self._insert(entry, now)
        elif known.phase is Phase.RUNNING:
            if event:
                known.arrived_again = entry.arrival
        else:
            self._update(known, entry.identity, entry.arrival, now, event=event)

    def vanish(self, key: str, now: float) -> None:
        """A file is gone. One that runs is left to find that out by itself."""
        entry = self._entries.get(key)
        if entry is not None and entry.phase is not Phase.RUNNING:
            self._remove(entry)
            self._refresh(self._lanes.get(entry.lane), now)

    def keep_only(self, keys: Iterable[str], now: float, *, seen_before: float) -> None:
        """A scan that started at `seen_before` has found these: forget the others, but not what came later."""
        there = set(keys)
        for entry in list(self._entries.values()):
            if entry.key not in there and not entry.is_aside and entry.seen < seen_before:
                self.vanish(entry.key, now)

    # Jobs start and end

    def start_next(self, now: float) -> list[Entry]:
        """The files whose turn it is; they are RUNNING from here on."""
        while self._timers and self._timers[0][0] <= now:
            self._refresh(self._lanes.get(heapq.heappop(self._timers)[1]), now)
        started: list[Entry] = []
        while self._phases[Phase.RUNNING] < self._limit:
            entry = self._take_ready(now) if self._hold is None else self._take_while_held(self._hold, now)
            if entry is None:
                break
            self._start(entry)
            started.append(entry)
        return started

    def next_due(self, now: float) -> float | None:
        """When `start_next` may have something again if nothing happens before; None: only an event brings it."""
        if self._phases[Phase.RUNNING] >= self._limit:
            return None
        times = [self._timers[0][0]] if self._timers else []
        if self._hold is not None and self._ready:
            times.append(self._hold.until)
        return max(now, min(times)) if times else None

    def finish(self, entry: Entry, now: float) -> None:
        """The job is done, has failed or has found no file: the queue forgets it."""
        self._lanes[entry.lane].running = None
        self._remove(entry)
        self._end_scouting(entry, now)
        self._refresh(self._lanes.get(entry.lane), now)

    def defer(self, entry: Entry, now: float, *, due: float, reason: Reason, error: str, lets_pass: bool) -> None:
        """The job is to be tried again at `due`."""
        entry.reason, entry.error, entry.lets_pass = reason, error, lets_pass
        entry.failures += 1
        self._put_back(entry, Phase.DEFERRED, due, now)

    def leave_elsewhere(self, entry: Entry, now: float, *, due: float) -> None:
        """Another spooler holds the repository: look again at `due`."""
        entry.lets_pass = False
        self._put_back(entry, Phase.ELSEWHERE, due, now)

    def hold(self, entry: Entry, reason: Reason, *, until: float, patience: float) -> float:
        """A job met trouble that all others would meet: none starts before `until`, and then one ahead of the others.

        Jobs that ran side by side meet it together: that counts once. Returns until when the queue is held.
        """
        held = self._hold
        if held is None or held.reason is not reason or held.scout is entry:
            self.shared_failures += 1
            self._hold = held = _Hold(reason, until, patience)
        return held.until

    def release(self, now: float) -> None:
        """A job got through: whatever waited for the same trouble to end goes now."""
        if self._hold is None:
            return
        reason, self._hold, self.shared_failures = self._hold.reason, None, 0
        for entry in self._entries.values():
            if entry.phase is Phase.DEFERRED and entry.reason is reason:
                entry.due = entry.next_try = 0.0
        for lane in list(self._lanes.values()):
            self._refresh(lane, now)

    @property
    def held_for(self) -> Reason | None:
        """Why the whole queue waits, when it does."""
        return self._hold.reason if self._hold is not None else None

    # Inside

    def _take_ready(self, now: float) -> Entry | None:
        while self._ready:
            order, name = heapq.heappop(self._ready)
            lane = self._lanes.get(name)
            entry = lane.next(now)[0] if lane is not None else None
            if entry is not None and entry.order == order:
                return entry
            if entry is not None and entry.order > order:
                heapq.heappush(self._ready, (entry.order, name))
        return None

    def _take_while_held(self, hold: _Hold, now: float) -> Entry | None:
        for key in sorted(self._urgent):
            entry = self._entries.get(key)
            if entry is not None and self._lanes[entry.lane].next(now)[0] is entry:
                return entry
        if now < hold.until:
            return None
        lanes = (self._lanes.get(name) for name in {name for _, name in self._ready})
        ready = [entry for lane in lanes if lane is not None and (entry := lane.next(now)[0]) is not None]
        if not ready:
            self._ready.clear()  # all of it was stale
            return None
        # Not the oldest again and again: the trouble may be with that file alone.
        scout = min(ready, key=lambda entry: (entry.failures, entry.order))
        hold.until, hold.scout = now + hold.patience, scout
        return scout

    def _end_scouting(self, entry: Entry, now: float) -> None:
        """The job that was sent ahead ended before it could tell anything: another one may go."""
        if self._hold is not None and self._hold.scout is entry:
            self._hold.until, self._hold.scout = now, None

    def _start(self, entry: Entry) -> None:
        self._set_phase(entry, Phase.RUNNING)
        self._lanes[entry.lane].running = entry
        self._urgent.discard(entry.key)
        entry.urgent = False
        entry.arrived_again = None

    def _put_back(self, entry: Entry, phase: Phase, due: float, now: float) -> None:
        lane = self._lanes[entry.lane]
        lane.running = None
        entry.due = due
        self._set_phase(entry, phase)
        self._end_scouting(entry, now)
        self._refresh(lane, now)

    def _update(self, entry: Entry, identity: Identity, arrival: Arrival, now: float, *, event: bool) -> None:
        changed = identity != entry.identity
        if not entry.identity.same_inode(identity) or arrival is Arrival.CLOSED:
            # A rename of the very file that is known may be our own, giving it back its name: it does not say
            # that the file is complete.
            entry.arrival = arrival
        if not entry.identity.same_content(identity):
            entry.attempts = 0
        if changed:
            self._move(entry, identity)
        entry.seen = now
        if (changed or event) and entry.phase is Phase.DEFERRED:
            # New content, or somebody's wish to see it tried: at once, whatever the back-off says.
            entry.failures = 0
            entry.urgent = True
            self._urgent.add(entry.key)
            self._set_phase(entry, Phase.WAITING)
        self._refresh(self._lanes[entry.lane], now)

    def _move(self, entry: Entry, identity: Identity) -> None:
        entries = self._lanes[entry.lane].entries
        entries.remove(entry)
        entry.identity = identity
        bisect.insort(entries, entry, key=_ORDER)

    def _insert(self, entry: Entry, now: float) -> None:
        lane = self._lanes.setdefault(entry.lane, _Lane(entry.lane))
        bisect.insort(lane.entries, entry, key=_ORDER)
        self._refresh(lane, now)

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self._phases[entry.phase] -= 1
        self._urgent.discard(entry.key)
        lane = self._lanes[entry.lane]
        lane.entries.remove(entry)
        if not lane.entries:
            del self._lanes[entry.lane]

    def _set_phase(self, entry: Entry, phase: Phase) -> None:
        self._phases[entry.phase] -= 1
        self._phases[phase] += 1
        entry.phase = phase

    def _refresh(self, lane: _Lane | None, now: float) -> None:
        """Note when the lane has something to start."""
        if lane is None:
            return
        entry, again = lane.next(now)
        if entry is not None:
            heapq.heappush(self._ready, (entry.order, lane.name))
        if again is not None:
            heapq.heappush(self._timers, (again, lane.name))
