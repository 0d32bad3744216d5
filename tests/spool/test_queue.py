from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from registry_spooler.spool.scheduling.job import Arrival, Entry, Phase, Reason
from registry_spooler.spool.scheduling.queue import ALONE_SECONDS, Queue
from support.spool.queues import entry, queue_of, running, start


def defer(
    queue: Queue, name: str, *, now: float, due: float, reason: Reason = Reason.STATUS, passing: bool = False
) -> None:
    queue.defer(running(queue, name), now, due=due, reason=reason, error="", non_blocking=passing)


def test_one_repository_runs_in_the_order_of_arrival_and_others_beside_it() -> None:
    queue = queue_of("a:1", "a:2", "b:1", "a!", "c:1")
    assert start(queue) == ["a:1", "b:1", "c:1"]
    assert start(queue) == []
    queue.finish(running(queue, "a:1"), 0)
    assert start(queue) == ["a:2"]
    queue.finish(running(queue, "a:2"), 0)
    assert start(queue) == ["a!"]


def test_no_more_jobs_than_allowed() -> None:
    queue = queue_of("a", "b", "c", limit=2)
    assert start(queue) == ["a", "b"]
    assert start(queue, 1) == []
    queue.finish(running(queue, "a"), 0)
    assert start(queue) == ["c"]


def test_a_deferred_file_keeps_its_repository_waiting_and_no_other() -> None:
    queue = queue_of("a:1", "a:2", "b:1", limit=1)
    assert start(queue) == ["a:1"]
    defer(queue, "a:1", now=0, due=10)
    assert start(queue) == ["b:1"]
    queue.finish(running(queue, "b:1"), 1)
    assert start(queue, 1) == []
    assert queue.next_due(1) == 10
    assert start(queue, 10) == ["a:1"]


def test_a_file_that_is_not_quite_there_lets_others_pass() -> None:
    queue = queue_of("a:1", "a:2")
    assert start(queue) == ["a:1"]
    defer(queue, "a:1", now=0, due=10, reason=Reason.WRITING, passing=True)
    assert start(queue) == ["a:2"]
    queue.finish(running(queue, "a:2"), 5)
    assert queue.next_due(5) == 10
    assert start(queue, 10) == ["a:1"]


def test_a_new_event_tries_a_deferred_file_at_once() -> None:
    queue = queue_of("a:1")
    assert start(queue) == ["a:1"]
    defer(queue, "a:1", now=0, due=1000)
    queue.arrive(entry("a:1", arrived=1, inode=1), now=1, event=False)
    assert start(queue, 1) == []
    queue.arrive(entry("a:1", arrived=1, inode=1), now=2, event=True)
    assert start(queue, 2) == ["a:1"]
    assert running(queue, "a:1").failures == 0


def test_a_scan_that_finds_other_content_tries_it_at_once_too() -> None:
    queue = queue_of("a:1")
    assert start(queue) == ["a:1"]
    defer(queue, "a:1", now=0, due=1000)
    queue.arrive(entry("a:1", arrived=7, inode=7), now=1, event=False)
    assert start(queue, 1) == ["a:1"]


def test_a_replaced_file_goes_to_the_end_of_its_repository() -> None:
    queue = queue_of("a:0", "a:1", "a!")
    assert start(queue) == ["a:0"]
    queue.arrive(entry("a:1", arrived=9, inode=9), now=0, event=True)
    queue.finish(running(queue, "a:0"), 0)
    assert start(queue) == ["a!"]


def test_a_file_set_aside_goes_before_what_has_its_name_now() -> None:
    queue = queue_of("a:0", "a:1")
    assert start(queue) == ["a:0"]
    queue.arrive(entry("a:1", arrived=99, inode=5, aside=True), now=0, event=False)
    queue.finish(running(queue, "a:0"), 0)
    (aside,) = queue.start_next(0)
    assert aside.is_aside
    queue.finish(aside, 0)
    assert start(queue) == ["a:1"]


def test_an_event_for_a_running_file_is_remembered() -> None:
    queue = queue_of("a:1")
    assert start(queue) == ["a:1"]
    queue.arrive(entry("a:1", arrived=2, inode=2, arrival=Arrival.CLOSED), now=0, event=True)
    assert running(queue, "a:1").arrived_again is Arrival.CLOSED
    queue.vanish("a:1", 0)
    assert "a:1" in queue


def test_a_file_that_has_gone_is_forgotten_and_the_next_one_goes() -> None:
    queue = queue_of("a:1", "a:2")
    assert start(queue) == ["a:1"]
    defer(queue, "a:1", now=0, due=1000)
    queue.vanish("a:1", 1)
    assert start(queue, 1) == ["a:2"]


def test_a_scan_forgets_what_it_did_not_find_but_not_what_came_since() -> None:
    queue = queue_of("a", "b")
    queue.arrive(entry("c", arrived=3), now=5, event=True)
    queue.keep_only({"a"}, 6, seen_before=5)
    assert ("a" in queue, "b" in queue, "c" in queue) == (True, False, True)


def test_shared_trouble_holds_everybody_until_a_time() -> None:
    queue = queue_of("a", "b", "c", "d", limit=2)
    assert start(queue) == ["a", "b"]
    for name in ("a", "b"):
        until = queue.hold(Reason.SPOOL, 0, until=10)
        defer(queue, name, now=0, due=until, reason=Reason.SPOOL)
    assert queue.shared_failures == 1
    assert (start(queue, 9), queue.next_due(9)) == ([], 10)
    assert start(queue, 10) == ["a", "b"]
    assert queue.held_for is None
    queue.hold(Reason.SPOOL, 11, until=30)
    assert queue.shared_failures == 2
    defer(queue, "a", now=11, due=1000, reason=Reason.SPOOL)
    queue.finish(running(queue, "b"), 12)
    queue.release(12)
    assert start(queue, 12) == ["a", "c"]
    assert queue.shared_failures == 0


def held_queue(*names: str) -> Queue:
    """Two files ran and met the same trouble, which a ping can ask about."""
    queue = queue_of(*names, limit=2)
    for name in start(queue):
        queue.hold(Reason.PROTOCOL, 0, until=0, pings=True)
        defer(queue, name, now=0, due=1000, reason=Reason.PROTOCOL)
    return queue


def ping(queue: Queue, now: float, *, is_up: bool, until: float = 0) -> None:
    assert queue.wants_ping(now)
    assert not queue.wants_ping(now)
    assert (start(queue, now), queue.next_due(now)) == ([], None)
    queue.pinged(now, is_up=is_up, until=until, next_try=until)


def test_while_a_ping_fails_no_file_is_tried_and_then_all_go_in_the_order_of_arrival() -> None:
    queue = held_queue("a", "b", "c", "d")
    ping(queue, 0, is_up=False, until=10)
    assert not queue.wants_ping(9)
    assert (start(queue, 9), queue.next_due(9), queue.shared_failures) == ([], 10, 2)
    ping(queue, 10, is_up=True)
    assert start(queue, 10) == ["a", "b"]
    for name in ("a", "b"):
        queue.finish(running(queue, name), 11)
    assert start(queue, 11) == ["c", "d"]
    assert queue.shared_failures == 0


def test_a_file_with_which_alone_the_trouble_is_waits_by_itself() -> None:
    queue = held_queue("a", "b", "c")
    ping(queue, 0, is_up=True)
    assert start(queue, 0) == ["c"]
    queue.release(1)
    queue.finish(running(queue, "c"), 1)
    assert (start(queue, 1), queue.next_due(1)) == ([], 1000)


def test_a_registry_that_takes_pushes_and_no_pings_is_tried_now_and_then() -> None:
    queue = held_queue("a", "b", "c")
    for now in (0, 100, 299):
        ping(queue, now, is_up=False, until=now + 1)
        assert start(queue, now + 1) == []
    ping(queue, 300, is_up=False)
    assert start(queue, 300) == ["a", "b"]


def test_the_same_trouble_is_one_trouble_however_it_shows() -> None:
    queue = queue_of("a", "b", limit=2)
    assert start(queue) == ["a", "b"]
    for name, reason in (("a", Reason.PROTOCOL), ("b", Reason.UNREACHABLE)):
        queue.hold(reason, 0, until=0, pings=True)
        defer(queue, name, now=0, due=1000, reason=reason)
    assert queue.shared_failures == 1
    ping(queue, 0, is_up=False, until=10)
    queue.release(5)
    assert start(queue, 5) == ["a", "b"]


def test_an_answer_that_comes_when_a_job_has_got_through_changes_nothing() -> None:
    queue = held_queue("a", "b", "c")
    assert queue.wants_ping(0)
    queue.release(1)
    queue.pinged(2, is_up=False, until=50, next_try=50)
    assert (start(queue, 2), queue.held_for) == (["c"], None)


def test_names_that_cannot_be_read_have_lanes_of_their_own() -> None:
    queue = queue_of("UPPER", "LOWER")
    assert start(queue) == ["UPPER", "LOWER"]


def finish(queue: Queue, *names: str) -> None:
    for name in names:
        queue.finish(running(queue, name), 0)


def test_a_bundle_waits_for_all_that_came_before_it_and_all_that_came_after_waits_for_it() -> None:
    queue = queue_of("a:1", "b:1", "@x.tar", "c:1", "@y.tar", "@z.tar", "d:1")
    assert start(queue) == ["a:1", "b:1"]
    finish(queue, "a:1")
    assert start(queue) == []
    finish(queue, "b:1")
    for name in ("@x.tar", "c:1", "@y.tar", "@z.tar"):
        assert start(queue) == [name]
        assert start(queue, 100) == []
        finish(queue, name)
    assert start(queue) == ["d:1"]


def test_a_bundle_waits_for_what_is_put_off_and_for_what_waits_behind_that() -> None:
    queue = queue_of("a:1", "a:2", "b:1", "@all.tar", "c:1")
    assert start(queue) == ["a:1", "b:1"]
    defer(queue, "a:1", now=0, due=10)
    queue.leave_elsewhere(running(queue, "b:1"), 0, due=20)
    assert (start(queue), queue.next_due(0)) == ([], 10)
    assert start(queue, 10) == ["a:1"]
    finish(queue, "a:1")
    assert start(queue, 10) == ["a:2"]
    finish(queue, "a:2")
    assert (start(queue, 10), queue.next_due(10)) == ([], 20)
    assert start(queue, 20) == ["b:1"]
    finish(queue, "b:1")
    assert start(queue, 20) == ["@all.tar"]


def test_a_bundle_does_not_wait_for_what_is_not_quite_there_or_goes_last() -> None:
    queue = queue_of("a:1", "b:1", "@all.tar")
    assert start(queue) == ["a:1", "b:1"]
    defer(queue, "a:1", now=0, due=10, passing=True)
    queue.set_apart(running(queue, "b:1"), 0)
    assert start(queue) == ["@all.tar"]
    assert start(queue, 10) == []
    finish(queue, "@all.tar")
    assert start(queue, 10) == ["a:1"]
    finish(queue, "a:1")
    assert start(queue, 10) == ["b:1"]


def test_a_bundle_that_another_spooler_has_keeps_its_place() -> None:
    queue = queue_of("@all.tar", "a:1")
    assert start(queue) == ["@all.tar"]
    queue.leave_elsewhere(running(queue, "@all.tar"), 0, due=1)
    assert (start(queue), queue.next_due(0)) == ([], 1)
    assert start(queue, 1) == ["@all.tar"]
    queue.leave_elsewhere(running(queue, "@all.tar"), 1, due=2)
    queue.vanish("@all.tar", 1)
    assert start(queue, 1) == ["a:1"]


@pytest.mark.parametrize("passing", [True, False])
def test_a_bundle_that_is_not_quite_there_lets_others_pass(passing: bool) -> None:
    queue = queue_of("@all.tar", "a:1")
    assert start(queue) == ["@all.tar"]
    defer(queue, "@all.tar", now=0, due=10, passing=passing)
    assert start(queue) == (["a:1"] if passing else [])
    assert queue.next_due(0) == 10
    if passing:
        assert start(queue, 10) == []
        finish(queue, "a:1")
    assert start(queue, 10) == ["@all.tar"]


def test_a_bundle_that_vanishes_frees_what_it_held_back() -> None:
    queue = queue_of("@all.tar", "a:1", limit=1)
    queue.arrive(entry("first", arrived=0), 0, event=False)
    assert start(queue) == ["first"]
    queue.vanish("@all.tar", 0)
    queue.finish(running(queue, "first"), 0)
    assert start(queue) == ["a:1"]


def test_what_arrived_at_the_same_tick_of_the_clock_keeps_its_order() -> None:
    queue = Queue(4)
    for name in ("a:2", "a:1", "a!"):
        queue.arrive(entry(name, arrived=1), now=0, event=True)
    for name in ("a:2", "a:1", "a!"):
        assert start(queue) == [name]
        queue.finish(running(queue, name), 0)


def test_what_is_told_of_later_goes_later_though_the_clock_was_set_back() -> None:
    queue = Queue(1)
    queue.arrive(entry("a:1", arrived=1_000, inode=1), now=0, event=True)
    queue.arrive(entry("a:2", arrived=10, inode=2), now=0, event=True)
    queue.arrive(entry("a:3", arrived=11, inode=3), now=0, event=True)
    queue.arrive(entry("a:0", arrived=5, inode=4), now=0, event=False)
    assert run_all(queue) == ["a:0", "a:1", "a:2", "a:3"]


@pytest.mark.parametrize("event", [True, False])
def test_a_change_of_mode_owner_or_links_keeps_the_place(event: bool) -> None:
    queue = queue_of("a:1", "a:2", limit=1)
    known = queue.get("a:1")
    assert known is not None
    touched = entry("a:1", arrived=1, inode=1)
    touched.identity = replace(touched.identity, changed_ns=99)
    queue.arrive(touched, 0, event=event)
    assert known.identity.changed_ns == 99
    assert run_all(queue) == ["a:1", "a:2"]


def test_what_is_replaced_while_its_job_runs_has_the_place_of_that_moment() -> None:
    queue = queue_of("a:1", limit=1)
    assert start(queue) == ["a:1"]
    queue.arrive(entry("a:1", arrived=5, inode=5), 0, event=True)
    queue.arrive(entry("a:2", arrived=6, inode=6), 0, event=True)
    queue.finish(running(queue, "a:1"), 0)
    queue.arrive(entry("a:1", arrived=5, inode=5), 0, event=True)
    assert run_all(queue) == ["a:1", "a:2"]


def test_what_is_set_apart_goes_last_and_alone() -> None:
    queue = queue_of("a:1", "a:2", "b:1", limit=2)
    assert start(queue) == ["a:1", "b:1"]
    queue.set_apart(running(queue, "a:1"), 0)
    queue.set_apart(running(queue, "b:1"), 0)
    assert start(queue) == ["a:2"]
    assert start(queue) == []
    queue.finish(running(queue, "a:2"), 0)
    assert start(queue) == ["a:1"]
    queue.arrive(entry("c:1", arrived=9, inode=9), 0, event=True)
    assert start(queue) == []
    assert queue.next_due(0) == ALONE_SECONDS
    assert start(queue, ALONE_SECONDS) == ["c:1"]
    queue.finish(running(queue, "a:1"), 0)
    queue.finish(running(queue, "c:1"), 0)
    assert start(queue) == ["b:1"]
    defer(queue, "b:1", now=0, due=7)
    assert (start(queue), queue.next_due(0)) == ([], 7)
    queue.arrive(entry("b:1", arrived=10, inode=10), 0, event=True)
    assert start(queue) == ["b:1"]
    assert not running(queue, "b:1").alone


def test_a_bundle_that_goes_while_the_queue_is_held_frees_what_it_held_back() -> None:
    queue = queue_of("@all.tar", "a:1")
    assert start(queue) == ["@all.tar"]
    queue.hold(Reason.SPOOL, 0, until=10)
    defer(queue, "@all.tar", now=0, due=100, reason=Reason.SPOOL)
    queue.vanish("@all.tar", 9)
    assert start(queue, 9) == []
    assert start(queue, 10) == ["a:1"]


def test_a_bundle_that_killed_spoolers_is_alone_to_its_end() -> None:
    queue = queue_of("@all.tar")
    assert start(queue) == ["@all.tar"]
    queue.set_apart(running(queue, "@all.tar"), 0)
    assert start(queue) == ["@all.tar"]
    queue.arrive(entry("a:1", arrived=9, inode=9), 0, event=True)
    assert start(queue, ALONE_SECONDS) == []
    finish(queue, "@all.tar")
    assert start(queue, ALONE_SECONDS) == ["a:1"]


def run_all(queue: Queue) -> list[str]:
    """Do what there is, one after the other; the names in that order."""
    done: list[str] = []
    while names := start(queue):
        for name in names:
            queue.finish(running(queue, name), 0)
        done += names
    return done


def test_an_idle_queue_asks_for_no_waking() -> None:
    queue = queue_of("a")
    assert start(queue) == ["a"]
    defer(queue, "a", now=0, due=5)
    assert start(queue, 5) == ["a"]
    queue.finish(running(queue, "a"), 6)
    assert start(queue, 6) == []
    assert queue.next_due(6) is None
    assert queue.oldest() is None


@pytest.mark.parametrize("bundles", [0, 1_000])
@pytest.mark.parametrize("held", [False, True])
def test_a_long_queue_does_not_take_long(bundles: int, held: bool) -> None:
    names = [f"app{number}:1" for number in range(20_000)]
    for number in range(bundles):
        names.insert(number * 21, f"@{number}.tar")
    queue = queue_of(*names)
    jobs = queue.start_next(0)
    while jobs:
        if held:
            queue.hold(Reason.UNREACHABLE, 0, until=0, pings=True)
            ping(queue, 0, is_up=False)
            ping(queue, 0, is_up=True)
        for job in jobs:
            queue.finish(job, 0)
        jobs = queue.start_next(0)
    assert len(queue) == 0


PHASES_WITH_A_TIME = (Phase.DEFERRED, Phase.ELSEWHERE)
NAMES = ("a:1", "a:2", "a!", "b:1", "b:2", "c:1", "@x.tar", "@y.tar", "BAD")


def keep_apart(one: Entry, other: Entry) -> bool:
    """May the two not run at the same time?"""
    return one.repository == other.repository or one.is_bundle or other.is_bundle


class QueueMachine(RuleBasedStateMachine):
    """Anything that can happen, in any order; the rules that a user relies on hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(2)
        self.now = 0.0
        self.tick = 0
        self.running: list[Entry] = []
        self.there: set[str] = set()

    @rule(name=st.sampled_from(NAMES), event=st.booleans(), replaced=st.booleans())
    def arrive(self, name: str, event: bool, replaced: bool) -> None:
        self.tick += 1
        known = self.queue.get(name)
        inode = self.tick if replaced or known is None else known.identity.inode
        self.queue.arrive(entry(name, arrived=self.tick, inode=inode), self.now, event=event)
        self.there.add(name)

    @rule(name=st.sampled_from(NAMES))
    def vanish(self, name: str) -> None:
        self.queue.vanish(name, self.now)
        if name not in {running.name for running in self.running}:
            self.there.discard(name)

    @rule(seconds=st.sampled_from((0.0, 0.5, 5.0, 50.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def start(self) -> None:
        may_start = [file for file in self.files() if self.may_start(file)]
        started = self.queue.start_next(self.now)
        held = self.queue.held_for is not None
        assert not (held and started)
        assert all(any(file is other for other in may_start) for file in started)
        self.running += started
        if not held and len(self.running) < 2:
            assert not [file for file in self.files() if self.may_start(file)]

    def may_start(self, file: Entry) -> bool:
        """Is it a file's turn, told by looking at all files?"""
        if file.phase is Phase.RUNNING or (file.phase in PHASES_WITH_A_TIME and file.due > self.now):
            return False
        if any(running.alone and running.due > self.now for running in self.running):
            return False
        if file.alone:
            others = [other for other in self.files() if not other.alone]
            return not self.running and not any(self.may_start(other) for other in others)
        if any(other.phase is Phase.RUNNING and keep_apart(file, other) for other in self.files()):
            return False
        return not any(self.keeps_back(other, file) for other in self.files())

    def keeps_back(self, other: Entry, file: Entry) -> bool:
        """Has the other one to be done before the file?"""
        if other.alone or other.order >= file.order or not keep_apart(file, other):
            return False
        return other.phase is not Phase.DEFERRED or not other.non_blocking or other.due <= self.now

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        file = self.take(data)
        self.queue.finish(file, self.now)
        self.there.discard(file.name)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        delay=st.sampled_from((0.0, 1.0, 30.0)),
        reason=st.sampled_from((Reason.STATUS, Reason.WRITING, Reason.UNREACHABLE, Reason.PROTOCOL, Reason.SPOOL)),
    )
    def defer(self, data: st.DataObject, delay: float, reason: Reason) -> None:
        file = self.take(data)
        due = self.now + delay
        if reason not in {Reason.STATUS, Reason.WRITING}:
            due = max(due, self.queue.hold(reason, self.now, until=due, pings=reason is Reason.PROTOCOL))
        self.queue.defer(file, self.now, due=due, reason=reason, error="", non_blocking=reason is Reason.WRITING)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave_elsewhere(self, data: st.DataObject) -> None:
        self.queue.leave_elsewhere(self.take(data), self.now, due=self.now + 1)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def set_apart(self, data: st.DataObject) -> None:
        self.queue.set_apart(self.take(data), self.now)

    @rule()
    def give_way(self) -> None:
        if (overdue := self.queue.give_way(self.now)) is not None:
            self.running.remove(overdue)
            self.queue.put_back(overdue, self.now)

    @rule()
    def release(self) -> None:
        self.queue.release(self.now)

    @rule()
    def ask(self) -> None:
        self.queue.wants_ping(self.now)

    @rule(is_up=st.booleans())
    def answer(self, is_up: bool) -> None:
        self.queue.pinged(self.now, is_up=is_up, until=self.now + 1, next_try=0.0)

    def take(self, data: st.DataObject) -> Entry:
        file = data.draw(st.sampled_from(self.running))
        self.running.remove(file)
        return file

    def files(self) -> list[Entry]:
        return [file for phase in Phase for file in self.queue.in_phase(phase, 100)]

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert {file.name for file in self.files()} == self.there
        assert len(self.queue) == len(self.there) == sum(self.queue.count(phase) for phase in Phase)

    @invariant()
    def repositories_run_one_job_at_a_time_bundles_alone_and_few_in_all(self) -> None:
        running = [file for file in self.files() if file.phase is Phase.RUNNING]
        assert not [pair for pair in itertools.combinations(running, 2) if keep_apart(*pair)]
        assert {file.name for file in running} == {file.name for file in self.running}
        assert len(running) == len(self.running) <= 3  # two, and one that is quick

    @invariant()
    def it_wakes_up_in_time_and_not_for_nothing(self) -> None:
        due = self.queue.next_due(self.now)
        assert due is None or due >= self.now
        later = [file for file in self.files() if file.phase in PHASES_WITH_A_TIME and file.due > self.now]
        first = [file.due for file in later if self.is_first(file)]
        if first and not self.running and self.queue.held_for is None:
            assert due is not None
            assert due <= min(first)

    def is_first(self, file: Entry) -> bool:
        return not any(other.order < file.order and keep_apart(file, other) for other in self.files())

    def teardown(self) -> None:
        """Whatever has happened: left alone, with nothing going wrong any more, everything gets done."""
        self.answer(True)
        for _ in range(200):
            for file in self.running:
                self.queue.finish(file, self.now)
                self.queue.release(self.now)
            if self.queue.wants_ping(self.now):
                self.answer(True)
            self.running = self.queue.start_next(self.now)
            if not len(self.queue):
                return
            if not self.running:
                due = self.queue.next_due(self.now)
                assert due is not None, "there is work, and nobody would ever look at it again"
                self.now = due
        raise AssertionError("it never ends")


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
