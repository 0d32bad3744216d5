"""The results for people (text) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.contestants import DAEMONS
from bench.goals import Verdict
from bench.pushes import Row, Table
from bench.scenarios import Figures

MIB = 1 << 20
HEADINGS = (
    "archive", "by", "wall s", "CPU s", "registry CPU s", "peak MiB", "stored MiB",
    "wall/skopeo", "CPU/skopeo", "wall/floor",
)  # fmt: skip


def push_lines(table: Table) -> list[str]:
    """The main table."""
    failures = [f"{row.case}, {row.contestant}: {row.failure}" for row in table.rows if row.failure]
    return [*align([HEADINGS, *(_cells(table, row) for row in table.rows)]), *failures]


def figure_lines(figures: Figures) -> list[str]:
    """The other figures, in units that read well."""
    return align([(_spoken(name), _readable(name, value)) for name, value in figures.items()])


def goal_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Each goal, its limit, what was measured and whether that will do."""
    rows = [("goal", "at most", "measured", "")]
    for verdict in verdicts:
        unit = verdict.goal.unit
        value = "-" if verdict.value is None else f"{verdict.value:.3g} {unit}".strip()
        rows.append((verdict.goal.text, f"{verdict.goal.limit:g} {unit}".strip(), value, verdict.word))
    return align(rows)


def entry(table: Table, figures: Figures) -> dict[str, float | None]:
    """One flat dictionary of all that can get worse, for the history."""
    flat: dict[str, float | None] = dict(figures)
    for row in table.rows:
        if row.contestant in DAEMONS:
            for measure in ("wall_seconds", "client_cpu_seconds", "peak_bytes"):
                flat[f"{row.case}, {row.contestant}, {measure}"] = row.median(measure)
    return flat


def as_json(table: Table, figures: Figures, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Everything that was measured, every sample of it."""
    return {
        "pushes": [asdict(row) for row in table.rows],
        "figures": figures,
        "goals": [
            {"goal": v.goal.text, "limit": v.goal.limit, "unit": v.goal.unit, "value": v.value, "verdict": v.word}
            for v in verdicts
        ],
    }


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need to be; the first two to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = 2 if len(widths) > 4 else 1
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(table: Table, row: Row) -> tuple[str, ...]:
    def shown(value: float | None, digits: str, scale: float = 1) -> str:
        return "-" if value is None else format(value / scale, digits)

    def ratio(other: str, measure: str) -> str:
        return shown(table.ratio(row.case, row.contestant, other, measure), ".2f")

    return (
        row.case,
        row.contestant,
        shown(row.median("wall_seconds"), ".2f"),
        shown(row.median("client_cpu_seconds"), ".2f"),
        shown(row.median("registry_cpu_seconds"), ".2f"),
        shown(row.median("peak_bytes"), ".0f", MIB),
        shown(row.median("stored_bytes"), ".1f", MIB),
        ratio("skopeo", "wall_seconds"),
        ratio("skopeo", "client_cpu_seconds"),
        ratio("floor", "wall_seconds"),
    )


def _spoken(name: str) -> str:
    words = name.removesuffix("_seconds")
    return (f"{words.removesuffix('_bytes')} memory" if words.endswith("_bytes") else words).replace("_", " ")


def _readable(name: str, value: float) -> str:
    if name.endswith(("_bytes", "_bytes_read")):
        return f"{value / MIB:.2f} MiB"
    if name.endswith("_seconds"):
        return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"
    return f"{value:.3g}"
