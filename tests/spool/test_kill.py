"""Killed at any instant: nothing is lost, nothing stays behind, and the next start finishes it."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from support.spool.scripted import ALWAYS, debris, drop, visible
from support.spool.spooler_nursery import Logged, Nursery


def run_to_the_end(nursery: Nursery, directory: Path, log: Path, **options: bool) -> None:
    """Start a spooler, wait until it has nothing to do, and stop it."""
    pid = nursery.start(directory, log, **options)
    end = time.monotonic() + 30
    while not (is_ready(log, pid) and is_idle(directory)):
        assert time.monotonic() < end, (visible(directory), debris(directory))
        time.sleep(0.003)
    assert nursery.stop(pid) == 0


def is_ready(log: Path, pid: int) -> bool:
    return any((line.event, line.pid) == ("ready", pid) for line in Logged.read(log))


def is_idle(directory: Path) -> bool:
    """Nothing to do, no lock held, nothing set aside, and no folder but that of one running spooler."""
    work = directory / ".work"
    if visible(directory) or not work.is_dir() or any((directory / ".locks").glob("*")):
        return False
    runs = [path for path in work.iterdir() if path.name not in ALWAYS]
    return len(runs) == 1 and sorted(path.name for path in runs[0].iterdir()) == ["alive", "reserve"]


def pushed(log: Path) -> list[str]:
    return [line.content for line in Logged.read(log) if line.event == "push"]


@pytest.mark.parametrize("name", ["app:1.tar", "app:1.tar!"])
def test_a_job_killed_at_each_of_its_steps(nursery: Nursery, place: Path, name: str) -> None:
    steps = 0
    for step in range(1, 400):
        directory, log = place / str(step), place / f"{step}.log"
        directory.mkdir()
        drop(directory, name, b"content")
        pid = nursery.start(directory, log, die_at=step)
        if not _dies_or_finishes(nursery, pid, directory, log):
            break
        steps = step
        run_to_the_end(nursery, directory, log)
        assert (directory / ".receipts" / f"{name}.json").exists()
        assert set(pushed(log)) == {"" if name.endswith("!") else "content"}
        assert debris(directory) == []
    assert steps > 15


def test_a_failing_file_killed_at_each_of_its_steps(nursery: Nursery, place: Path) -> None:
    steps = 0
    for step in range(1, 400):
        directory, log = place / str(step), place / f"{step}.log"
        directory.mkdir()
        drop(directory, "app.tar", b"content")
        pid = nursery.start(directory, log, die_at=step, fails=True)
        if not _dies_or_finishes(nursery, pid, directory, log):
            break
        steps = step
        run_to_the_end(nursery, directory, log, fails=True)
        failed = directory / ".failed"
        assert sorted(os.listdir(failed)) == ["app.tar", "app.tar.error.json"]
        assert (failed / "app.tar").read_bytes() == b"content"
        assert debris(directory) == []
    assert steps > 15


def _dies_or_finishes(nursery: Nursery, pid: int, directory: Path, log: Path) -> bool:
    """Wait for what a spooler that was told to die does; did it die before its job was finished?"""
    status = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + 30
    while status.read_text().rpartition(")")[2].split()[0] != "Z":
        if is_ready(log, pid) and is_idle(directory):
            nursery.kill(pid)
            return False
        assert time.monotonic() < end, (visible(directory), debris(directory))
        time.sleep(0.003)
    nursery.wait(pid)
    return True


def test_many_rounds_of_kills_at_random_instants(nursery: Nursery, place: Path) -> None:
    directory, log = place / "spool", place / "log"
    directory.mkdir()
    dropped = []
    for round_number in range(60):
        pid = nursery.start(directory, log)
        for number in range(3):
            content = f"{round_number}.{number}"
            drop(directory, f"app{number}:{round_number}.tar", content.encode())
            dropped.append(content)
            time.sleep(random.uniform(0, 0.03))
        nursery.kill(pid)
    run_to_the_end(nursery, directory, log)
    assert set(pushed(log)) == set(dropped)
    assert len(os.listdir(directory / ".receipts")) == len(dropped)
    assert debris(directory) == []
