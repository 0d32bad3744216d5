"""Jobs that take long never keep quick ones waiting: there is one place more for these."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from registry_spooler.progress import Progress
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.scheduling import repository_queue as slots
from registry_spooler.spool.scheduling.job import Job
from registry_spooler.spool.scheduling.repository_queue import GIVES_WAY_SECONDS, LONG_SECONDS
from support.spool.queues import queue_of, running, start
from support.spool.scripted import Handler, drop, spooling

LATER = LONG_SECONDS
MUCH_LATER = LONG_SECONDS + GIVES_WAY_SECONDS


@pytest.mark.parametrize("limit", [1, 4])
def test_one_more_when_all_take_long(limit: int) -> None:
    queue = queue_of(*"abcdefgh", limit=limit)
    assert len(start(queue)) == limit
    assert queue.next_due(0) == LATER
    assert start(queue, LATER - 0.1) == []
    assert len(start(queue, LATER)) == 1
    assert start(queue, 2 * LATER) == []


def test_quick_ones_go_one_after_the_other() -> None:
    queue = queue_of("slow", "a", "b", "c", limit=1)
    assert start(queue) == ["slow"]
    for name in "abc":
        assert start(queue, LATER) == [name]
        queue.finish(running(queue, name), LATER)


def test_what_takes_long_there_gives_way_and_does_not_come_back_to_that_place() -> None:
    queue = queue_of("slow", "slower", "quick", "quick-too", limit=1)
    assert start(queue) == ["slow"]
    assert start(queue, LATER) == ["slower"]
    assert queue.give_way(MUCH_LATER - 0.1) is None
    assert queue.next_due(LATER) == MUCH_LATER
    overdue = queue.give_way(MUCH_LATER)
    assert overdue is running(queue, "slower")
    assert queue.give_way(MUCH_LATER) is None
    queue.put_back(overdue, MUCH_LATER)
    for name in ("quick", "quick-too"):
        assert start(queue, MUCH_LATER) == [name]
        queue.finish(running(queue, name), MUCH_LATER)
    assert start(queue, MUCH_LATER) == []
    queue.finish(running(queue, "slow"), MUCH_LATER)
    assert start(queue, MUCH_LATER) == ["slower"]


def test_nothing_gives_way_while_nobody_waits() -> None:
    queue = queue_of("slow", "slower", limit=1)
    start(queue)
    start(queue, LATER)
    assert queue.give_way(MUCH_LATER) is None
    assert queue.next_due(MUCH_LATER) is None


def test_nothing_is_pushed_beside_a_bundle_however_long_it_takes() -> None:
    queue = queue_of("@bundle.tar", "quick", limit=1)
    assert start(queue) == ["@bundle.tar"]
    assert start(queue, LATER) == []
    assert queue.give_way(LATER + GIVES_WAY_SECONDS) is None


def test_files_of_one_repository_keep_their_order() -> None:
    queue = queue_of("slow", "a:1", "a:2", "b", limit=1)
    start(queue)
    assert start(queue, LATER) == ["a:1"]
    overdue = queue.give_way(MUCH_LATER)
    assert overdue is running(queue, "a:1")
    queue.put_back(overdue, MUCH_LATER)
    assert start(queue, MUCH_LATER) == ["b"]
    queue.finish(running(queue, "b"), MUCH_LATER)
    assert start(queue, MUCH_LATER) == []


async def test_in_a_spool(spool_directory: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two endless jobs, and one place; what gives way is done in the end."""
    monkeypatch.setattr(slots, "LONG_SECONDS", 0.01)
    monkeypatch.setattr(slots, "GIVES_WAY_SECONDS", 0.01)
    freed = anyio.Event()

    async def endless(job: Job, file: OpenedFile, progress: Progress) -> None:
        await freed.wait()

    for name in ("slow", "slower"):
        handler.first(name, endless, endless)
        drop(spool_directory, name)
    async with spooling(spool_directory, handler, jobs_at_once=1) as spool:
        await spool.until(lambda: set(handler.running) == {"slow", "slower"})
        for name in ("quick", "quick-too"):
            drop(spool_directory, name)
            await spool.until(lambda name=name: name in dict(handler.pushes))
        freed.set()
        await spool.until(lambda: len(handler.pushes) == 4)
    assert sorted(handler.attempts) in (
        ["quick", "quick-too", "slow", "slower", "slower"],
        ["quick", "quick-too", "slow", "slow", "slower"],
    )
