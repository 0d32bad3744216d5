"""Several spoolers on one directory: real processes, of which one is killed every second, under load."""

from __future__ import annotations

import collections
import itertools
import os
import random
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.programs.running_spooler import HEALTH_PORT, RunningSpooler, Spool
from support.registries.verify import Reader

REPLICAS = 4
FILES = 400
REPOSITORIES = 40
SECONDS_BETWEEN_KILLS = 1.0
TAKE_OVER_SECONDS = 5.0
LINE = re.compile(r"^(?P<time>\S+) \w+ +(?P<what>pushing|pushed|deferred|failed) (?P<rest>.*)$")


@dataclass(frozen=True)
class Turn:
    """The time that one spooler spent on one file, in seconds of the clock."""

    start: float
    end: float


def seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()


def turns(log: str, ended: float) -> dict[str, list[Turn]]:
    """By file name: each turn from a spooler's log; `ended` is when the process was gone at the latest."""
    found: dict[str, list[Turn]] = collections.defaultdict(list)
    running: dict[str, float] = {}
    for match in filter(None, map(LINE.match, log.splitlines())):
        name = re.search(r"many-\d+:\d+\.bin", match["rest"])
        if name is None:
            continue
        if match["what"] == "pushing":
            running[name[0]] = seconds(match["time"])
        elif name[0] in running:
            found[name[0]].append(Turn(running.pop(name[0]), seconds(match["time"])))
    for name_left, start in running.items():
        found[name_left].append(Turn(start, ended))
    return found


@pytest.mark.timeout(300)
def test_nothing_is_pushed_twice_at_once_and_nothing_is_left(make_registry, tmp_path: Path):
    registry, spool, chance = make_registry(), Spool(tmp_path / "spool"), random.Random(400)
    contents = {
        f"many-{number % REPOSITORIES}:{number}.bin": chance.randbytes(chance.randrange(1_000, 400_000))
        for number in range(FILES)
    }
    replicas = [RunningSpooler(spool, registry.url) for _ in range(REPLICAS)]
    logs: list[dict[str, list[Turn]]] = []
    for replica in replicas:
        replica.start()
    for name, content in contents.items():
        spool.drop(name, content)

    for victim in itertools.cycle(replicas):
        deadline = time.monotonic() + SECONDS_BETWEEN_KILLS
        if spool.is_empty_before(deadline):
            break
        killed = time.time()
        victim.kill()
        logs.append(turns(str(victim.log), killed))
        victim.launch()
    for replica in replicas:
        replica.wait_for_log(HEALTH_PORT)  # the last to be started answers no signal before
        assert replica.terminate() == 0
        logs.append(turns(str(replica.log), time.time()))

    assert len(logs) > REPLICAS, "nobody was killed"
    assert spool.waiting == []
    assert os.listdir(spool.folder / ".failed") == []
    reader = Reader(registry)
    for name, content in contents.items():
        repository, _, tag = name.partition(":")
        image = reader.image(repository, tag)
        assert reader.unpacked(repository, image.layers[0]) == content
        assert spool.receipt(name)["digest"] == image.digest
    for name in contents:
        ordered = sorted((turn for log in logs for turn in log.get(name, [])), key=lambda turn: turn.start)
        for earlier, later in itertools.pairwise(ordered):
            assert earlier.end <= later.start + 0.001, f"{name}: {ordered}"


def test_a_dead_ones_work_is_taken_over(make_registry, tmp_path: Path):
    registry, spool = make_registry(), Spool(tmp_path / "spool")
    with RunningSpooler(spool, registry.url) as first:
        spool.drop("large.bin", os.urandom(256 << 20))
        registry.log.wait_for('"PATCH /v2/large/', 30)
        with RunningSpooler(spool, registry.url) as second:
            first.kill()
            second.wait_for_log("pushing large.bin", TAKE_OVER_SECONDS)
            spool.receipt("large.bin")

    assert Reader(registry).image("large").layers[0].unpacked_size == 256 << 20
