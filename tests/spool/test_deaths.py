"""A file that the spooler does not survive: it does not keep the others from being pushed, and ends in `.failed`."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_spooler.aio import in_thread
from registry_spooler.spool.directory.deaths import DEATHS_MAX, begin_work, deaths_over
from registry_spooler.spool.directory.files import identity_of
from registry_spooler.spool.directory.workdir import open_workdir
from registry_spooler.spool.housekeeping import open_recovered_workdir, recover
from support.spool.scripted import ALWAYS, Handler, debris, drop, failure, spooling, visible
from support.spool.spooler_nursery import Logged, Nursery

POISON = "poison.tar"
REASON = (
    "the spooler was killed {} times while it worked on this file, the last time while it did nothing else; "
    "the file is not tried again, so that others are pushed"
)


@pytest.mark.parametrize("spoolers", [1, 3])
def test_a_file_that_kills_ends_in_failed_and_all_others_are_pushed(
    nursery: Nursery, place: Path, spoolers: int
) -> None:
    directory, log = place / "spool", place / "log"
    directory.mkdir()
    good = [f"app{number}.tar" for number in range(12)]
    for name in (good[0], POISON, *good[1:]):
        drop(directory, name, name.encode())
    running: list[int] = []
    deaths = 0
    end = time.monotonic() + 60
    while visible(directory) or deaths <= DEATHS_MAX:
        assert time.monotonic() < end, (visible(directory), debris(directory))
        running += [start(nursery, directory, log) for _ in range(spoolers - len(running))]
        for pid in [pid for pid in running if nursery.is_dead(pid)]:
            nursery.wait(pid)
            running.remove(pid)
            deaths += 1
        time.sleep(0.003)
    until(lambda: {line.pid for line in Logged.read(log) if line.event == "ready"} >= {*running})
    assert [nursery.stop(pid) for pid in running] == [0] * len(running)
    # Until the death of one is known to the others, they may try it as well.
    assert DEATHS_MAX + 1 <= deaths <= DEATHS_MAX + spoolers
    assert failure(directory, POISON)["error"] == REASON.format(deaths)
    assert (directory / ".failed" / POISON).read_bytes() == POISON.encode()
    assert sorted(os.listdir(directory / ".receipts")) == sorted(f"{name}.json" for name in good)
    assert not list((directory / ".work").glob("died.*"))
    if spoolers == 1:
        assert alone_at_its_last(Logged.read(log))


def start(nursery: Nursery, directory: Path, log: Path) -> int:
    return nursery.start(directory, log, dies_of=POISON, seconds=0.05)


def alone_at_its_last(lines: list[Logged]) -> bool:
    """Return whether the process did nothing else when it began with the poison for the last time."""
    last = next(number for number in range(len(lines) - 1, -1, -1) if is_start_of_poison(lines[number]))
    open_jobs = Counter(line.event for line in lines[:last] if line.pid == lines[last].pid)
    return open_jobs["start"] == open_jobs["end"]


def is_start_of_poison(line: Logged) -> bool:
    return (line.event, line.name) == ("start", POISON)


def test_a_stop_is_no_violent_death_even_if_somebody_loses_patience(nursery: Nursery, place: Path) -> None:
    directory, log = place / "spool", place / "log"
    directory.mkdir()
    drop(directory, "app.tar")
    for _ in range(DEATHS_MAX + 1):
        pid = nursery.start(directory, log, hangs=True)
        until(lambda: any((line.event, line.pid) == ("start", pid) for line in Logged.read(log)))  # noqa: B023 - called before the next turn of the loop
        assert list((directory / ".work").glob("*/*.job"))
        os.kill(pid, 15)
        until(lambda: not list((directory / ".work").glob("*/*.job")))
        nursery.kill(pid)
    pid = nursery.start(directory, log)
    until(lambda: not visible(directory))
    assert not list((directory / ".work").glob("died.*"))
    assert nursery.stop(pid) == 0


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.003)


def die_over(directory: Path, name: str) -> None:
    """What is left of a run whose process dies while it works on the file."""
    room = open_workdir(directory)
    begin_work(room.folder, name, identity_of(room.layout.directory, name).mark, alone=False)
    os.close(room._alive)


def test_each_death_counts_once_however_many_clear_up(spool_directory: Path) -> None:
    (spool_directory / "app.tar").write_bytes(b"content")
    for _ in range(2):
        die_over(spool_directory, "app.tar")
    living, other = open_recovered_workdir(spool_directory, set()), open_recovered_workdir(spool_directory, set())
    recover(living)
    recover(other)
    work, mark = living.layout.work, identity_of(living.layout.directory, "app.tar").mark
    assert deaths_over(work, mark).count == 2
    (spool_directory / "app.tar").write_bytes(b"other content")
    recover(other)
    assert deaths_over(work, mark).count == 0
    living.close()
    other.close()
    assert debris(spool_directory) == []


async def test_a_suspect_that_is_pushed_alone_is_cleared(spool_directory: Path, handler: Handler) -> None:
    for name in ("suspect.tar", "other.tar"):
        drop(spool_directory, name)
    for _ in range(DEATHS_MAX):
        await in_thread(die_over, spool_directory, "suspect.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("suspect.tar", "other.tar")
    assert [name for name, _ in handler.pushes] == ["other.tar", "suspect.tar"]
    assert handler.most_running == 1
    assert {*os.listdir(spool_directory / ".work")} <= ALWAYS
