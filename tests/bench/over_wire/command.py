"""The command line of `./dev bench --wire`."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

import click

from bench.archives import MIB, cache_folder
from bench.history import compare, history_file, last_like, remember
from bench.machine import REPOSITORY, commit, load, this_machine
from bench.over_wire.far_ends import opened
from bench.over_wire.link import Line
from bench.over_wire.pieces_of_work import ONE_FILE, WORK, Amounts, WireBench
from bench.over_wire.senders import SENDERS
from bench.over_wire.wire_images import LayerShelf
from bench.over_wire.wire_table import as_figures, as_samples, table_lines
from bench.pushes import Table

FULL = Amounts(layer_bytes=24 * MIB, packages_bytes=191 * MIB, large_bytes=1000 * MIB, people=10, person_bytes=16 * MIB)
QUICK = Amounts(layer_bytes=2 * MIB, packages_bytes=12 * MIB, large_bytes=16 * MIB, people=3, person_bytes=2 * MIB)


@click.command()
@click.option("--wire", is_flag=True, help="What this is.")
@click.option("--quick", is_flag=True, help="Small images: ends within a few minutes, and tells less.")
@click.option("--rate", default=20.0, show_default=True, help="Of the link, in Mbit/s in each direction.")
@click.option("--delay", default=50.0, show_default=True, help="Of the link, there and back, in milliseconds.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="How often each is measured.")
@click.option("--by", default=",".join(SENDERS), show_default=True, help="Who sends.")
@click.option("--only", default=",".join(work for work in WORK if work != ONE_FILE), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=REPOSITORY / ".cache" / "bench", show_default=True)
def measure_wire(
    *, wire: bool, quick: bool, rate: float, delay: float, rounds: int, by: str, only: str, output: Path
) -> None:
    """Push through an API server behind a slow link, beside what people do without this project.

    In a cluster of ./dev cluster for root where the programs of Kubernetes are at hand, else with the tests' stand-in.
    """
    assert wire, "or another command would have been run"
    line, machine = Line(rate * 1e6, delay / 1000), this_machine()
    click.echo(f"{machine}\ncommit {commit()}, load {load():.2f}, link {line}")
    scratch = Path(mkdtemp(prefix="wire-", dir=cache_folder()))
    try:
        with opened(scratch, _tell) as far_end:
            shelf = LayerShelf(cache_folder(), _tell)
            bench = WireBench(
                far_end=far_end,
                shelf=shelf,
                amounts=QUICK if quick else FULL,
                line=line,
                scratch=scratch,
                tell=_tell,
            )
            table = bench.run(only.split(","), by.split(","), rounds)
            kind = f"wire, {'quick' if quick else 'full'}, {line}, {far_end.title}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _publish(table, output, machine.key, kind)


def _publish(table: Table, output: Path, machine: str, kind: str) -> None:
    click.echo("\n" + "\n".join(table_lines(table)) + "\n")
    now = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine,
        "kind": kind,
        "load": load(),
        "figures": as_figures(table),
    }
    if before := last_like(machine, kind):
        changes = compare(before, now) or ["nothing has changed notably"]
        click.echo(f"Since {before['commit']} of {before['time']}:\n  " + "\n  ".join(changes))
    remember(now)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"wire-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(now | {"samples": as_samples(table)}, indent=1))
    click.echo(f"{path}; history in {history_file()}")


def _tell(sentence: str) -> None:
    click.echo(f"  {sentence}", err=True)
