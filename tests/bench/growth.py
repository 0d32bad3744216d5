"""How cost grows: with the size of an archive, and with the number of its layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.archives import MIB, Shelf
from bench.contestants import Case
from bench.pushes import Table, measure_pushes

LAYERS_PER_SIZE = 5
SIZES_MIB = (10, 100, 1_000, 10_000)
LAYER_COUNTS = (1, 10, 100, 1_000)
ALL_LAYERS_MIB = 200
"""The sum of the layers when their number grows: the work stays the same, so the rest is what a layer costs."""


def measure_growth(shelf: Shelf, scratch: Path, rounds: int, limit_mib: int, *, tell: Callable[[str], None]) -> Table:
    """Docker archives of growing size, then of growing numbers of layers, by all contestants."""
    cases = [
        _case(shelf, f"{size} MiB", [size * MIB // LAYERS_PER_SIZE] * LAYERS_PER_SIZE)
        for size in SIZES_MIB
        if size <= limit_mib
    ]
    cases += [_case(shelf, f"{count} layers", [ALL_LAYERS_MIB * MIB // count] * count) for count in LAYER_COUNTS]
    return measure_pushes(cases, ("spooler", "skopeo", "floor"), rounds, scratch, tell=tell)


def _case(shelf: Shelf, name: str, sizes: list[int]) -> Case:
    return Case(name=name, archive=shelf.docker(sizes), is_oci=False, is_packed=False)
