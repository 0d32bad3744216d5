from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from registry_spooler.progress import Progress
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.scheduling.job import Job, Outcome
from support.programs.idle import wait_until_asleep
from support.spool.scripted import Handler, debris, drop, spooling, visible
from support.spool.spooler_nursery import Logged, Nursery


async def test_running_jobs_are_finished_and_no_others_started(spool_directory: Path, handler: Handler) -> None:
    for name in ("a.tar", "b.tar"):
        drop(spool_directory, name)
    finish = anyio.Event()

    async def wait(job: Job, file: OpenedFile, progress: Progress) -> None:
        await finish.wait()

    handler.first("a.tar", wait)
    async with spooling(spool_directory, handler, jobs_at_once=1) as running:
        await running.until(lambda: handler.running == ["a.tar"])
        running.spool.stop()
        drop(spool_directory, "c.tar")
        finish.set()
        await running.until_done("a.tar")
    assert handler.attempts == ["a.tar"]
    assert visible(spool_directory) == ["b.tar", "c.tar"]
    assert debris(spool_directory) == []


async def test_jobs_that_take_longer_than_the_grace_are_cancelled(spool_directory: Path, handler: Handler) -> None:
    drop(spool_directory, "a.tar")
    cancelled = []

    async def wait(job: Job, file: OpenedFile, progress: Progress) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(job.name)

    handler.first("a.tar", wait)
    async with spooling(spool_directory, handler, shutdown_grace_seconds=0.1) as running:
        await running.until(lambda: handler.running)
        running.spool.stop()
    assert cancelled == ["a.tar"]
    assert running.outcomes == [("a.tar", Outcome.ABANDONED)]
    assert running.state.jobs == {("push", "abandoned"): 1}
    assert visible(spool_directory) == ["a.tar"]
    assert debris(spool_directory) == []


@pytest.mark.parametrize("moment", ["before", "at once"])
async def test_it_can_be_stopped_at_any_time(spool_directory: Path, handler: Handler, moment: str) -> None:
    drop(spool_directory, "a.tar")
    with anyio.fail_after(5):
        async with spooling(spool_directory, handler) as running:
            if moment == "at once":
                await anyio.lowlevel.checkpoint()
            running.spool.stop()
    assert handler.attempts == []


async def test_a_cancelled_spool_leaves_nothing_behind(spool_directory: Path, handler: Handler) -> None:
    drop(spool_directory, "a.tar")

    async def wait(job: Job, file: OpenedFile, progress: Progress) -> None:
        await anyio.sleep_forever()

    handler.first("a.tar", wait)
    async with anyio.create_task_group() as tasks, spooling(spool_directory, handler) as running:
        await running.until(lambda: handler.running)
        tasks.cancel_scope.cancel()
    assert visible(spool_directory) == ["a.tar"]
    assert debris(spool_directory) == []


@pytest.mark.parametrize("at", [f"{step / 100:.2f}" for step in range(0, 12, 2)])
async def test_a_spool_cancelled_at_random_instants_loses_nothing(
    spool_directory: Path, handler: Handler, at: str
) -> None:
    drop(spool_directory, "a.tar")
    drop(spool_directory, "b.tar")
    with anyio.move_on_after(float(at)):
        async with spooling(spool_directory, handler) as running:
            await running.until_done("a.tar", "b.tar")
    assert debris(spool_directory) == []
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: not visible(spool_directory) and running.state.scanned.holds)
    assert handler.registry == {"a:latest": b"content", "b:latest": b"content"}


def test_an_idle_spooler_sleeps(nursery: Nursery, place: Path) -> None:
    directory, log = place / "spool", place / "log"
    directory.mkdir()
    drop(directory, "app.tar")
    pid = nursery.start(directory, log)
    while not any(line.event == "end" for line in Logged.read(log)):
        time.sleep(0.01)
    wait_until_asleep(pid)
    assert nursery.stop(pid) == 0
