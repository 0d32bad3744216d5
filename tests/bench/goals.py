"""What the project promises about its speed and size, held against what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.pushes import Table
from bench.scenarios import Figures

MIB = 1 << 20
Measure = Callable[[Table, Figures], "float | None"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and the most that it should be."""

    text: str
    limit: float
    measure: Measure
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal with what was measured; None when it was not."""

    goal: Goal
    value: float | None

    @property
    def word(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.goal.limit else "missed"


def _ratio(case: str, other: str, measure: str, contestant: str = "spooler") -> Measure:
    return lambda table, _: table.ratio(case, contestant, other, measure)


def _figure(name: str, scale: float = 1) -> Measure:
    return lambda _, figures: figures[name] * scale if name in figures else None


WALL, CPU, STORED = "wall_seconds", "client_cpu_seconds", "stored_bytes"

GOALS = (
    Goal("docker .tar: wall, of skopeo's", 0.33, _ratio("docker .tar", "skopeo", WALL)),
    Goal("docker .tar: wall, of the floor's", 1.15, _ratio("docker .tar", "floor", WALL)),
    Goal("docker .tar: stored bytes, of skopeo's", 1.1, _ratio("docker .tar", "skopeo", STORED)),
    Goal("docker .tgz: wall, of gunzip plus skopeo", 0.40, _ratio("docker .tgz", "skopeo", WALL)),
    Goal("OCI .tar: wall, of skopeo's", 0.50, _ratio("OCI .tar", "skopeo", WALL)),
    Goal("OCI .tar: client's CPU, of skopeo's", 0.30, _ratio("OCI .tar", "skopeo", CPU)),
    Goal("OCI .tgz: wall, of skopeo's", 0.60, _ratio("OCI .tgz", "skopeo", WALL)),
    Goal("OCI .tar, digests only: wall, of skopeo's", 0.50, _ratio("OCI .tar", "skopeo", WALL, "digests")),
    Goal("OCI .tar, digests only: client's CPU, of skopeo's", 0.30, _ratio("OCI .tar", "skopeo", CPU, "digests")),
    Goal("OCI .tgz, digests only: wall, of skopeo's", 0.60, _ratio("OCI .tgz", "skopeo", WALL, "digests")),
    Goal("the same archive again, of the first push", 0.03, _figure("again_share")),
    Goal("one changed layer of eight, of that layer alone", 1.2, _figure("changed_ratio")),
    Goal("peak memory, 4 jobs", 96, _figure("peak_bytes", 1 / MIB), "MiB"),
    Goal("idle memory", 45, _figure("idle_bytes", 1 / MIB), "MiB"),
    Goal("many files of 10 KB, of a bare loop", 1.3, _figure("files_ratio")),
    Goal("mv to the tag, 10 KB, median", 25, _figure("latency_seconds", 1000), "ms"),
    Goal("start to ready", 0.4, _figure("start_seconds"), "s"),
    Goal("wake-ups when idle, a minute", 120, _figure("idle_wake_ups_per_second", 60)),
)


def judge(table: Table, figures: Figures) -> list[Verdict]:
    """Every goal with its figure."""
    return [Verdict(goal, goal.measure(table, figures)) for goal in GOALS]
