"""The queue: which file's turn it is. A state machine in plain code, without a loop, a clock or a disk.

Files of one repository (a lane) run one after the other, in the order of their arrival; different lanes run side by
side, up to a limit. A file that is deferred keeps those behind it in its lane waiting, unless it
`non_blocking`. A bundle
starts before its lanes are known, and `claim`s them when it has been read.
Trouble that all jobs share (the registry does not answer, the disk is full) holds the whole queue: at each end of the
waiting one job goes ahead, and the first one that gets through releases the rest. Where the trouble can be asked about
without a job, a probe goes first, so that no file is tried in vain and the oldest is the first to get through.
What spoolers have died over is set apart: it starts when nothing else may, and nothing starts while it runs.

Every method takes the time (monotonic clock, seconds) and changes state without waiting for anything; the caller
starts what `start_next` returns and reports back exactly once: `finish`, `defer`, `put_back` or `leave_elsewhere`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from registry_spooler.spool.directory.deaths import NO_DEATHS
from registry_spooler.spool.directory.files import Identity
from registry_spooler.spool.scheduling.job import Arrival, Entry, Phase, Reason
from registry_spooler.spool.scheduling.outcome import WITHOUT_ANSWER
from registry_spooler.spool.scheduling.repository_queue import ORDER, Heap, RepositoryQueues, Slots

ALONE_SECONDS: Final = 60.0
"""What has not killed the spooler for so long does not keep the others waiting."""

UNPROBED_SECONDS: Final = 300.0
"""After so long a file is tried though the probe fails: a registry may take pushes and not answer the probe."""


@dataclass(slots=True)
class _Hold:
    """The whole queue waits for the same trouble to end."""

    reason: Reason
    until: float
    patience: float
    """How long a job that was sent ahead may take before another one is sent, seconds."""
    scout: Entry | None = None
    """The job that was sent ahead."""
    tried: set[str] = field(default_factory=set)
    """The files that have met the trouble since it began, or since a probe first said that it is over."""
    probes: bool = False
    """Is a probe to succeed before a job is sent ahead?"""
    is_probing: bool = False
    is_passed: bool = False
    """Has the probe for the next job ahead succeeded?"""
    was_answered: bool = False
    """Did the last probe succeed?"""
    sent_at: float = 0.0
    """When a job was last sent ahead."""

    def lets_one_go(self, now: float) -> bool:
        """Return whether a job may be sent ahead."""
        return now >= self.until and (self.is_passed or not self.probes)

    def send(self, entry: Entry, now: float) -> None:
        """The job is sent ahead."""
        self.until, self.scout = now + self.patience, entry
        self.is_passed, self.sent_at = False, now


def _is_same(one: Reason, other: Reason) -> bool:
    """Are both the same trouble? What keeps the registry from answering is, however it shows."""
    return one is other or (one in WITHOUT_ANSWER and other in WITHOUT_ANSWER)


class Queue:
    """The files that wait, run, or wait for another try."""

    def __init__(self, limit: int) -> None:
        self._slots = Slots(limit)
        self._entries: dict[str, Entry] = {}
        self._arrivals = itertools.count(1)
        self._lanes = RepositoryQueues()
        self._ready: Heap[tuple[tuple[int, int], str]] = Heap()  # what has become stale in these is skipped
        self._timers: Heap[tuple[float, str]] = Heap()
        self._urgent: set[str] = set()
        self._apart: dict[str, Entry] = {}  # those that go last and alone
        self._places: dict[str, tuple[int, int]] = {}  # of files that have arrived anew while their job runs
        self._latest_ns = 0  # of the arrivals that events have told of
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
        return heapq.nsmallest(limit, (entry for entry in self._entries.values() if entry.phase is phase), key=ORDER)

    def oldest(self) -> Entry | None:
        """The file that arrived first, of those that do not run."""
        return min(self._lanes.heads(), key=ORDER, default=None)

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
        """The files whose turn it is; they are RUNNING from here on."""
        while self._timers and self._timers.first[0] <= now:
            self._refresh(self._timers.pop()[1], now)
        started: list[Entry] = []
        if self._alone_until(now) is not None:
            return started
        while not self._slots.are_full:
            entry = self._take_ready(now) if self._hold is None else self._take_while_held(self._hold, now)
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
        """The job that is to be cancelled and then `put_back`: it takes long in the place for quick ones."""
        overdue = self._slots.overdue(now)
        if overdue is None or (waiting := self._take_quick(now)) is None:
            return None
        self._refresh_lanes(waiting.lanes, now)
        overdue.gave_way = True
        return overdue

    def next_due(self, now: float) -> float | None:
        """When `start_next` may have something again if nothing happens before; None: only an event brings it."""
        if (alone_until := self._alone_until(now)) is not None:
            return alone_until
        times = [self._timers.first[0]] if self._timers else []
        if self._slots.are_full:
            change = self._slots.next_change(now) if self._hold is None else None
            times += [change] if change is not None and (times or self._ready) else []
            return max(now, min(times)) if times else None
        held = self._hold
        if held is not None and self._ready and not held.is_probing:
            times.append(held.until)
        if self._apart and not self._phases[Phase.RUNNING] and not (held is not None and held.is_probing):
            due = min(entry.due for entry in self._apart.values())
            times.append(max(due, held.until) if held is not None else due)
        return max(now, min(times)) if times else None

    def claim(self, entry: Entry, repositories: Iterable[str], now: float) -> bool:
        """A bundle that runs has been read. Is it its turn in all of these repositories? If not, `put_back` follows."""
        self._lanes.stop(entry)
        with self._moving(entry, now):
            entry.claim(repositories)
        if not entry.alone and not self._lanes.is_turn_of(entry):
            return False
        self._lanes.start(entry)
        return True

    def finish(self, entry: Entry, now: float) -> None:
        """The job is done, has failed or has found no file: the queue forgets it."""
        self._lanes.stop(entry)
        self._slots.leave(entry)
        self._end_scouting(entry, now)
        self._remove(entry, now)

    def put_back(self, entry: Entry, now: float) -> None:
        """The job's turn has not come after all."""
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

    def leave_elsewhere(self, entry: Entry, now: float, *, due: float, repositories: Iterable[str] = ()) -> None:
        """Another spooler holds the repository: look again at `due`. It may have said what its bundle is about."""
        entry.non_blocking = False
        self._stop(entry, Phase.ELSEWHERE, due, now)
        if repositories:
            with self._moving(entry, now):
                entry.claim(repositories)

    def hold(self, entry: Entry, reason: Reason, *, until: float, patience: float, probes: bool = False) -> float:
        """A job met trouble that all others would meet: none starts before `until`, and then one ahead of the others.

        Jobs that ran side by side meet it together: that counts once. With `probes`, `wants_probe` says when to ask
        before a job goes ahead. Returns until when the queue is held.
        """
        held = self._hold
        if held is None or not _is_same(held.reason, reason) or held.scout is entry:
            self.shared_failures += 1
            self._hold = _Hold(reason, until, patience, probes=probes, sent_at=until)
            if held is not None and _is_same(held.reason, reason):
                self._hold.tried, self._hold.was_answered = held.tried, held.was_answered
                self._hold.sent_at = held.sent_at
            held = self._hold
        held.reason = reason
        held.tried.add(entry.key)
        return held.until

    def release(self, now: float) -> None:
        """A job got through: whatever waited for the same trouble to end goes now."""
        if self._hold is None:
            return
        held, self._hold, self.shared_failures = self._hold, None, 0
        self._make_due(held, now, set())

    def wants_probe(self, now: float) -> bool:
        """Is it time to ask whether the trouble is over? `probe_started` follows, and then `probed`."""
        held = self._hold
        if held is None or not held.probes or held.is_probing or held.is_passed:
            return False
        is_wanted = bool(self._ready) or (bool(self._apart) and not self._phases[Phase.RUNNING])
        return now >= held.until and is_wanted and not self._slots.are_full

    def probe_started(self) -> None:
        """The question is on its way."""
        if self._hold is not None:
            self._hold.is_probing = True

    def probed(self, now: float, *, is_over: bool, until: float, next_try: float) -> None:
        """What a probe has found out; when the trouble is not over, the queue is held until then.

        `next_try` is the same moment in seconds since the epoch. A probe is not everything: now and then a job goes
        ahead though it failed.
        """
        held = self._hold
        if held is None or not held.is_probing:
            return
        held.is_probing = False
        held.is_passed = is_over or now - held.sent_at >= UNPROBED_SECONDS
        if is_over and not held.was_answered:
            held.tried.clear()
        held.was_answered = is_over
        if held.is_passed:
            self._make_due(held, now, held.tried)
            return
        self.shared_failures += 1
        held.until = until
        for entry in self._deferred_for(held):
            entry.next_try = max(entry.next_try, next_try)

    @property
    def held_for(self) -> Reason | None:
        """Why the whole queue waits, when it does."""
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
        if self._hold is not None and not self._hold.lets_one_go(now):
            return None
        ready = [entry for entry in self._apart.values() if entry.phase is Phase.WAITING or entry.due <= now]
        if not ready:
            return None
        last = min(ready, key=lambda entry: (entry.failures, entry.order))
        if self._hold is not None:
            self._hold.send(last, now)
        return last

    def _take_ready(self, now: float) -> Entry | None:
        """The oldest that may start. What is dropped here is noted again when what keeps it back has changed."""
        while self._ready:
            order, name = self._ready.pop()
            entry = self._lanes.next(name, now)[0]
            if entry is None or entry.order < order:
                continue
            if entry.order > order:
                self._ready.push((entry.order, name))
            elif self._lanes.is_blocked(entry):
                self._ready.push((order, name))  # and so are all others
                break
            elif self._lanes.is_first(entry, now):
                return entry
        return None

    def _take_quick(self, now: float) -> Entry | None:
        """The oldest that may start, of those that have not taken long before; none while the queue is held."""
        passed: list[Entry] = []
        found: Entry | None = None
        while self._hold is None and found is None and (entry := self._take_ready(now)) is not None:
            if entry.gave_way:
                passed.append(entry)
            else:
                found = entry
        for entry in passed:
            self._refresh_lanes(entry.lanes, now)
        return found

    def _take_while_held(self, hold: _Hold, now: float) -> Entry | None:
        for key in sorted(self._urgent):
            entry = self._entries.get(key)
            if entry is not None and self._may_start(entry, now):
                return entry
        if not hold.lets_one_go(now):
            return None
        firsts = (self._lanes.next(name, now)[0] for name in {name for _, name in self._ready})
        ready = [entry for entry in firsts if entry is not None and self._may_start(entry, now)]
        if not ready:
            self._ready.clear()
            return None
        # Not the oldest again and again: the trouble may be with that file alone.
        scout = min(ready, key=lambda entry: (entry.key in hold.tried, entry.order))
        if scout.key in hold.tried:
            hold.tried.clear()
        hold.send(scout, now)
        return scout

    def _deferred_for(self, hold: _Hold) -> Iterator[Entry]:
        for entry in self._entries.values():
            if entry.phase is Phase.DEFERRED and entry.reason is not None and _is_same(entry.reason, hold.reason):
                yield entry

    def _make_due(self, hold: _Hold, now: float, exceptions: set[str]) -> None:
        """Have the files go that wait for the same trouble to end, whatever their own back-off says."""
        for entry in self._deferred_for(hold):
            if entry.key not in exceptions:
                entry.due = entry.next_try = 0.0
        self._refresh_lanes(self._lanes, now)

    def _may_start(self, entry: Entry, now: float) -> bool:
        return self._lanes.is_first(entry, now) and not self._lanes.is_blocked(entry)

    def _end_scouting(self, entry: Entry, now: float) -> None:
        """The job that was sent ahead ended before it could tell anything: another one may go."""
        if self._hold is not None and self._hold.scout is entry:
            self._hold.until, self._hold.scout = now, None

    def _start(self, entry: Entry, now: float) -> None:
        if entry.alone:
            entry.due = now + ALONE_SECONDS
        self._set_phase(entry, Phase.RUNNING)
        self._slots.take(entry, now)
        self._lanes.start(entry)
        self._urgent.discard(entry.key)
        entry.urgent = False
        entry.arrived_again = None

    def _stop(self, entry: Entry, phase: Phase, due: float, now: float) -> None:
        self._lanes.stop(entry)
        self._slots.leave(entry)
        entry.due = due
        self._set_phase(entry, phase)
        self._end_scouting(entry, now)
        self._refresh_after(entry.is_unread, entry.lanes, now)

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
            entry.urgent = True
            self._urgent.add(entry.key)
            self._set_phase(entry, Phase.WAITING)
        self._refresh_lanes(entry.lanes, now)

    def _replace(self, entry: Entry, identity: Identity, now: float, *, event: bool) -> None:
        """The name has another content: it is as good as new."""
        with self._moving(entry, now):
            entry.identity, entry.still_since = identity, now
            entry.given_back = False
            entry.attempts, entry.deaths = 0, NO_DEATHS
            entry.disclaim()
            entry.alone = entry.gave_way = False
            self._apart.pop(entry.key, None)
            entry.arrived_ns, entry.arrivals = self._place(entry, event=event)

    @contextmanager
    def _moving(self, entry: Entry, now: float) -> Iterator[None]:
        """Within it the entry's order and lanes may be changed."""
        left, was_barrier = entry.lanes, entry.is_unread
        self._lanes.leave(entry)
        yield
        self._lanes.enter(entry)
        self._refresh_after(was_barrier, left, now)

    def _insert(self, entry: Entry, now: float) -> None:
        self._lanes.enter(entry)
        self._refresh_lanes(entry.lanes, now)

    def _remove(self, entry: Entry, now: float) -> None:
        del self._entries[entry.key]
        self._phases[entry.phase] -= 1
        self._urgent.discard(entry.key)
        self._apart.pop(entry.key, None)
        self._lanes.leave(entry)
        self._refresh_after(entry.is_unread, entry.lanes, now)

    def _set_phase(self, entry: Entry, phase: Phase) -> None:
        self._phases[entry.phase] -= 1
        self._phases[phase] += 1
        entry.phase = phase

    def _refresh_after(self, lifted: bool, lanes: Iterable[str], now: float) -> None:
        """Something in these lanes has changed; with `lifted`, a barrier before all lanes may have gone too."""
        # What a barrier keeps back stays noted in `_take_ready`. Only while the queue is held may it have been dropped.
        self._refresh_lanes(self._lanes if lifted and self._hold is not None else lanes, now)

    def _refresh_lanes(self, lanes: Iterable[str], now: float) -> None:
        for name in lanes:
            self._refresh(name, now)

    def _refresh(self, name: str, now: float) -> None:
        """Note when the lane has something to start."""
        entry, again = self._lanes.next(name, now)
        if entry is not None:
            self._ready.push((entry.order, name))
        if again is not None:
            self._timers.push((again, name))
