"""Queues of the spool, with entries as a test has them arrive."""

from __future__ import annotations

from pathlib import Path

from registry_spooler.folder import Folder
from registry_spooler.spool.directory.files import Identity
from registry_spooler.spool.directory.workdir import Aside
from registry_spooler.spool.scheduling.job import Arrival, Entry, Phase, parse_name
from registry_spooler.spool.scheduling.queue import Queue


def entry(name: str, *, arrived: int, inode: int = 1, arrival: Arrival = Arrival.FOUND, aside: bool = False) -> Entry:
    return Entry(
        name=name,
        parsed=parse_name(name),
        identity=Identity(1, inode, 0, arrived, arrived),
        arrival=arrival,
        aside=Aside(Folder(-1, Path("/spool/.work/run/0")), name) if aside else None,
    )


def queue_of(*names: str, limit: int = 4) -> Queue:
    queue = Queue(limit)
    for number, name in enumerate(names, start=1):
        queue.arrive(entry(name, arrived=number, inode=number), now=0, event=True)
    return queue


def start(queue: Queue, now: float = 0) -> list[str]:
    return [started.name for started in queue.start_next(now)]


def running(queue: Queue, name: str) -> Entry:
    found = queue.get(name)
    assert found is not None
    assert found.phase is Phase.RUNNING
    return found
