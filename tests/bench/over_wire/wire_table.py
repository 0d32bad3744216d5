"""The figures of pushes over a link, as text and for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.pushes import Row, Table
from bench.report import MIB, align

HEADINGS = ("work", "by", "seconds", "sent MB", "received kB", "pod MiB", "rollout s")


def table_lines(table: Table) -> list[str]:
    """Medians of all rounds; who failed is named below with the reason."""
    failures = [f"{row.case}, {row.contestant}: {row.failure}" for row in table.rows if row.failure]
    return [*align([HEADINGS, *map(_cells, table.rows)]), *failures]


def as_figures(table: Table) -> dict[str, float | None]:
    """One flat dictionary of all that can get worse, for the history."""
    measures = ("wall_seconds", "sent_bytes", "received_bytes", "pod_bytes")
    return {f"{row.case}, {row.contestant}, {name}": row.median(name) for row in table.rows for name in measures}


def as_samples(table: Table) -> list[dict[str, Any]]:
    """Everything that was measured."""
    return [asdict(row) for row in table.rows]


def _cells(row: Row) -> Sequence[str]:
    def shown(measure: str, digits: str, scale: float = 1) -> str:
        value = row.median(measure)
        return "-" if value is None else format(value / scale, digits)

    rollout = shown("rollout_seconds", ".2f") if "running" in row.case else ""
    return (
        row.case,
        row.contestant,
        shown("wall_seconds", ".2f"),
        shown("sent_bytes", ".3f", 1e6),
        shown("received_bytes", ".1f", 1e3),
        shown("pod_bytes", ".0f", MIB),
        rollout,
    )
