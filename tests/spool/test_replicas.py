"""Several spoolers on one directory: they share the work, and the death of one frees its work for the others."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from support.spool.scripted import ALWAYS, Handler, debris, drop, receipt, spooling, visible
from support.spool.spooler_nursery import Logged, Nursery

FILES = 400
REPOSITORIES = 80
SPOOLERS = 4
TAKE_OVER_SECONDS = 5.0


def test_four_spoolers_and_four_hundred_files_while_one_is_killed_every_second(nursery: Nursery, place: Path) -> None:
    directory, log = place / "spool", place / "log"
    directory.mkdir()
    names = [f"team\\app{number % REPOSITORIES}:{number // REPOSITORIES}.tar" for number in range(FILES)]
    alive = [nursery.start(directory, log, seconds=0.3) for _ in range(SPOOLERS)]
    killed: dict[int, float] = {}
    dropped = 0
    kill_at = time.monotonic() + 1
    end = time.monotonic() + 60
    while dropped < FILES or visible(directory):
        assert time.monotonic() < end, visible(directory)
        for name in names[dropped : dropped + 5]:
            drop(directory, name, name.encode())
        dropped = min(FILES, dropped + 5)
        if time.monotonic() > kill_at:
            victim = alive.pop(random.randrange(len(alive)))
            killed[victim] = time.monotonic()
            nursery.kill(victim)
            alive.append(nursery.start(directory, log, seconds=0.3))
            kill_at = time.monotonic() + 1
        time.sleep(0.01)
    last_death = max(killed.values())
    while any((directory / ".work").glob("*/*/*")):
        assert time.monotonic() < last_death + TAKE_OVER_SECONDS, debris(directory)
        time.sleep(0.01)
    assert [nursery.stop(pid) for pid in alive] == [0] * SPOOLERS

    history = History(killed)
    for line in Logged.read(log):
        history.add(line)
    assert history.mistakes == []
    assert history.slowest_take_over < TAKE_OVER_SECONDS
    assert history.done == set(names)
    assert len(killed) >= 3
    assert visible(directory) == []
    assert {receipt(directory, name)["file"] for name in names} == set(names)
    # One spooler more clears what the killed ones have left.
    pid = nursery.start(directory, log)
    while debris_of_the_dead(directory):
        assert time.monotonic() < end, debris(directory)
        time.sleep(0.01)
    nursery.kill(pid)


def debris_of_the_dead(directory: Path) -> bool:
    return len({*os.listdir(directory / ".work")} - ALWAYS) > 1 or bool(os.listdir(directory / ".locks"))


@dataclass
class History:
    """Reads the common log line by line, and notes what must not be in it."""

    killed: dict[int, float]
    """Process ids, with the time of their deaths."""
    running: dict[str, Logged] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    newest: dict[str, int] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    slowest_take_over: float = 0.0

    def add(self, line: Logged) -> None:
        if line.event == "start":
            self._start(line)
        elif line.event == "push":
            self._push(line)
        elif line.event == "end":
            self.running.pop(line.name, None)

    def _start(self, line: Logged) -> None:
        before = self.running.get(line.name)
        if before is not None:
            died = self.killed.get(before.pid)
            if died is None or line.seconds < died - 0.05:
                self.mistakes.append(f"{line.name} twice at once, by {before.pid} and {line.pid}")
            else:
                self.slowest_take_over = max(self.slowest_take_over, line.seconds - died)
        self.running[line.name] = line

    def _push(self, line: Logged) -> None:
        if line.content != line.name:
            self.mistakes.append(f"{line.name} with other content")
        repository, _, number = line.name.removesuffix(".tar").partition(":")
        # A spooler killed after its push leaves the file to be pushed again; never an older one after a newer one.
        if int(number) < self.newest.get(repository, 0):
            self.mistakes.append(f"{line.name} after {repository}:{self.newest[repository]}")
        self.newest[repository] = int(number)
        self.done.add(line.name)


async def test_the_work_of_a_dead_spooler_is_taken_over(nursery: Nursery, place: Path, handler: Handler) -> None:
    directory, log = place / "spool", place / "log"
    directory.mkdir()
    drop(directory, "app:1.tar")
    drop(directory, "app:2.tar")
    pid = nursery.start(directory, log, seconds=3600)
    while not any(line.event == "start" for line in Logged.read(log)):  # noqa: ASYNC110 - another process's log
        await anyio.sleep(0.01)
    async with spooling(directory, handler) as running:
        await running.until(lambda: running.state.elsewhere_count == 1)
        assert handler.attempts == []
        nursery.kill(pid)
        died = time.monotonic()
        await running.until_done("app:1.tar", "app:2.tar")
        assert time.monotonic() - died < TAKE_OVER_SECONDS
    assert [name for name, _ in handler.pushes] == ["app:1.tar", "app:2.tar"]


async def test_what_a_dead_spooler_had_set_aside_comes_back(nursery: Nursery, place: Path, handler: Handler) -> None:
    directory, log = place / "spool", place / "log"
    directory.mkdir()
    async with spooling(directory, handler) as running:
        await running.until_ready()
        drop(directory, "app.tar")
        await running.until_done("app.tar")
        pid = nursery.start(directory, log)
        await running.until(lambda: len({*os.listdir(directory / ".work")} - ALWAYS) == 2)
        ours = running.spool._housekeeper.workdir
        assert ours is not None
        (theirs,) = (
            path for path in (directory / ".work").iterdir() if path.is_dir() and path.name != ours.folder.path.name
        )
        nursery.kill(pid)
        # As if it had been killed while its file was set aside: the name is free, and nobody knows of the file.
        (theirs / "7").mkdir()
        drop(directory, "lost~", b"set aside")
        os.rename(directory / "lost~", theirs / "7" / "lost.tar")
        drop(directory, "again.tar")
        os.unlink(directory / "again.tar")
        await running.until_done("lost.tar", seconds=TAKE_OVER_SECONDS)
    assert handler.registry["lost:latest"] == b"set aside"
    assert debris(directory) == []
