"""Writers of another user, watched by a spooler that may neither take a lease on their files nor look into /proc."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.spool.scripted import visible
from support.spool.spooler_nursery import Logged

SETTLE_SECONDS = 1.0
SPOOLER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import anyio
from support.spool.spooler_nursery import LoggingHandler
from registry_spooler.spool.spool import Spool
from registry_spooler.spool.settings import SpoolSettings

async def main():
    spool = Spool(SpoolSettings(directory=Path(sys.argv[2]), settle_seconds=float(sys.argv[4])))
    handler = LoggingHandler(Path(sys.argv[3]))
    spool.state.on_job_end = lambda end: handler.note("end", end.name, end.outcome.value.encode())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spool.run, handler)
        while not (spool.state.scanned.holds and spool.state.writable.holds):
            await anyio.sleep(0.01)
        print("ready", flush=True)

anyio.run(main)
"""
WRITER = """
import os, sys, time
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o644)
for number in range(int(sys.argv[2])):
    os.write(fd, b"%d " % number)
    time.sleep(float(sys.argv[3]))
if sys.argv[4:]:
    os.close(fd)
    os.rename(sys.argv[1], sys.argv[4])
"""
"""Writes numbers into a file, slowly, as another user where the tests run as root; may rename it in the end."""


@pytest.fixture
def place(place: Path) -> Path:
    place.chmod(0o711)
    directory = place / "spool"
    directory.mkdir()
    directory.chmod(0o1777)
    return place


@contextmanager
def spooler(place: Path) -> Iterator[None]:
    """Without the capabilities that tell of others' writers, as in a container."""
    command = [
        *("setpriv", "--bounding-set=-lease,-sys_ptrace,-dac_read_search", "--inh-caps=-all"),
        *(sys.executable, "-c", SPOOLER, str(Path(__file__).parents[1]), str(place / "spool"), str(place / "log")),
        str(SETTLE_SECONDS),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        yield
        process.kill()


def write(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, *map(str, arguments)])


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def until_empty(directory: Path) -> None:
    until(lambda: not visible(directory))


def pushed(log: Path) -> list[str]:
    return [line.content for line in Logged.read(log) if line.event == "push"]


def test_a_writer_that_nobody_sees_loses_nothing(place: Path) -> None:
    """It was at work before the spooler came, and nothing tells that it still is."""
    file = place / "spool" / "notes"
    with write(file, 12, SETTLE_SECONDS / 3):
        until(lambda: file.exists() and file.stat().st_size)
        with spooler(place):
            until_empty(place / "spool")
    assert pushed(place / "log")[-1] == "".join(f"{number} " for number in range(12))


def test_a_second_writer_behind_one_that_has_closed_the_file(place: Path) -> None:
    file = place / "spool" / "notes"
    with spooler(place), write(file, 4, SETTLE_SECONDS / 3):
        until(file.exists)
        with write(file, 0, 0):
            pass  # opened for writing, and closed
        until_empty(place / "spool")
    assert pushed(place / "log")[-1] == "0 1 2 3 "


def test_what_is_renamed_into_place_does_not_wait(place: Path) -> None:
    file = place / "spool" / "notes"
    with spooler(place):
        with write(f"{file}~", 1, 0, file):
            pass
        until(lambda: any(line.event == "end" for line in Logged.read(place / "log")))
    lines = Logged.read(place / "log")
    assert [(line.event, line.content) for line in lines] == [("start", ""), ("push", "0 "), ("end", "done")]


def test_what_comes_later_waits_for_what_nobody_sees(place: Path) -> None:
    first, second = place / "spool" / "app:1", place / "spool" / "app:2"
    with write(first, 1, 0):
        pass
    with spooler(place):
        with write(f"{second}~", 2, 0, second):
            pass
        until_empty(place / "spool")
    assert ["0 ", "0 1 "] == pushed(place / "log")
