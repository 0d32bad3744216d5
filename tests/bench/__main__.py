"""The command line of `./dev bench`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

import click

from bench import scenarios
from bench.archives import MIB, Family, Shelf, cache_folder
from bench.contestants import CONTESTANTS, Case
from bench.goals import judge
from bench.growth import measure_growth
from bench.history import compare, history_file, last_like, remember
from bench.machine import REPOSITORY, commit, load, this_machine
from bench.over_wire.command import measure_wire
from bench.plot import write_plot
from bench.process import RunFailed
from bench.pushes import Table, measure_pushes
from bench.report import as_json, entry, figure_lines, goal_lines, push_lines
from bench.scenarios import Figures

LAYERS_MIB = (800, 300, 200, 100, 100)
CHANGED_LAYERS = 8
SCENARIOS = ("pushes", "again", "changed", "memory", "files", "latency", "start", "idle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    scale: float
    """The size of the archives, as a part of 1.5 GB."""
    rounds: int
    files: int
    latencies: int
    starts: int
    idle_seconds: float


FULL = Plan(scale=1, rounds=3, files=1000, latencies=60, starts=5, idle_seconds=20)
QUICK = Plan(scale=0.04, rounds=1, files=60, latencies=15, starts=2, idle_seconds=4)


@click.command()
@click.option("--quick", is_flag=True, help="Small archives, one round: ends within a minute, and tells less.")
@click.option("--grow", is_flag=True, help="How cost grows with the size, and with the number of layers, instead.")
@click.option("--scale", type=float, help="The size of the archives, as a part of 1.5 GB.")
@click.option("--rounds", type=click.IntRange(1), help="How often each push is measured.")
@click.option("--cold", is_flag=True, help="Archives are read from the disk, not from the page cache.")
@click.option("--by", default="spooler,digests,skopeo,floor", show_default=True, help=f"Of {', '.join(CONTESTANTS)}.")
@click.option("--only", default=",".join(SCENARIOS), show_default=True, help="What to measure.")
@click.option("--case", "case_name", default="", help="Only the archives whose name has this in it, like '.tgz'.")
@click.option("--wire", is_flag=True, help="Pushes over a slow link to a cluster, instead: see --wire --help.")
@click.option("--output", type=click.Path(path_type=Path), default=REPOSITORY / ".cache" / "bench", show_default=True)
def main(
    *,
    quick: bool,
    grow: bool,
    scale: float | None,
    rounds: int | None,
    cold: bool,
    by: str,
    only: str,
    case_name: str,
    wire: bool,
    output: Path,
) -> None:
    """Measure this project beside skopeo and beside the least code that does the same. It never fails a build."""
    assert not wire, "another command has it"
    plan = QUICK if quick else FULL
    plan = Plan(**{**asdict(plan), "scale": scale or plan.scale, "rounds": rounds or plan.rounds})
    machine, chosen = this_machine(), only.split(",")
    shelf = Shelf(cache_folder(), _tell)
    click.echo(f"{machine}\ncommit {commit()}, load {load():.2f}")
    scratch = Path(mkdtemp(prefix="run-", dir=cache_folder()))
    try:
        if grow:
            table = measure_growth(shelf, scratch, plan.rounds, 100 if quick else 10_000, tell=_tell)
            figures: Figures = {}
        else:
            sizes = [int(size * plan.scale * MIB) for size in LAYERS_MIB]
            family = shelf.family(sizes) if {"pushes", "again", "memory"} & set(chosen) else None
            cases = [case for case in _cases(family) if case_name in case.name] if family and "pushes" in chosen else []
            table = measure_pushes(cases, by.split(","), plan.rounds, scratch, tell=_tell, cold=cold)
            figures = _figures(plan, chosen, shelf, family, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    kind = f"{'grow' if grow else only}{case_name}, scale {plan.scale:g}{', cold' if cold else ''}, {gettempdir()}"
    _publish(table, figures, output, machine=machine.key, title=f"{machine}, {commit()}, {kind}", kind=kind, grow=grow)


def _cases(family: Family) -> list[Case]:
    return [
        Case(name="docker .tar", archive=family.docker_tar, is_oci=False, is_packed=False),
        Case(name="docker .tgz", archive=family.docker_tgz, is_oci=False, is_packed=True),
        Case(name="OCI .tar", archive=family.oci_tar, is_oci=True, is_packed=False),
        Case(name="OCI .tgz", archive=family.oci_tgz, is_oci=True, is_packed=True),
    ]


def _figures(plan: Plan, chosen: list[str], shelf: Shelf, family: Family | None, scratch: Path) -> Figures:
    forms = [family.docker_tar, family.docker_tgz, family.oci_tar, family.oci_tgz] if family else []
    layer_bytes = int(100 * plan.scale * MIB)
    measures: dict[str, Callable[[Path], Figures]] = {
        "start": lambda folder: scenarios.start(plan.starts, folder),
        "idle": lambda folder: scenarios.idle(plan.idle_seconds, folder),
        "latency": lambda folder: scenarios.latency(plan.latencies, folder),
        "files": lambda folder: scenarios.small_files(plan.files, folder),
        "again": lambda folder: scenarios.again(forms[0], folder),
        "changed": lambda folder: scenarios.one_changed_layer(*shelf.changed(layer_bytes, CHANGED_LAYERS), folder),
        "memory": lambda folder: scenarios.four_jobs(forms, folder),
    }
    figures: Figures = {}
    for name, measure in measures.items():
        if name not in chosen:
            continue
        _tell(name)
        folder = scratch / name
        folder.mkdir()
        try:
            figures |= measure(folder)
        except RunFailed as exc:
            click.echo(f"{name}: {exc}", err=True)
    return figures


def _publish(table: Table, figures: Figures, output: Path, *, machine: str, title: str, kind: str, grow: bool) -> None:
    verdicts = [] if grow else judge(table, figures)
    blocks = [push_lines(table)] if table.rows else []
    if figures:
        blocks.append(figure_lines(figures))
    if verdicts:
        blocks.append(goal_lines(verdicts))
    click.echo("\n\n" + "\n\n".join("\n".join(block) for block in blocks) + "\n")
    now: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine,
        "kind": kind,
        "load": load(),
        "figures": entry(table, figures),
    }
    if before := last_like(machine, kind):
        changes = compare(before, now) or ["nothing has changed notably"]
        click.echo(f"Since {before['commit']} of {before['time']}:\n  " + "\n  ".join(changes))
    if now["figures"]:
        remember(now)
    output.mkdir(parents=True, exist_ok=True)
    stem = output / f"{'grow' if grow else 'bench'}-{time.strftime('%Y%m%d-%H%M%S')}"
    stem.with_suffix(".json").write_text(
        json.dumps(now | as_json(table, figures, verdicts) | {"title": title}, indent=1)
    )
    drawn = bool(table.rows) and write_plot(table, stem.with_suffix(".svg"), title)
    click.echo(f"{stem}.json{', .svg' if drawn else ' (no plot)'}; history in {history_file()}")


def _tell(sentence: str) -> None:
    click.echo(f"  {sentence}", err=True)


if __name__ == "__main__":
    command = measure_wire if "--wire" in sys.argv else main
    command()
