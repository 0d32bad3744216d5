"""The main table: every contestant pushes every archive, in turns, and medians are taken of the pairs.

In each round all contestants run one after the other, so that what slows the machine down for a while slows all of
them; every second round goes backwards. A ratio is the median of the rounds' ratios, not a ratio of medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.contestants import Case, Sample, push_once, takes_part
from bench.process import RunFailed


@dataclass(kw_only=True)
class Row:
    """All samples of one contestant with one archive; `samples` has None where a run failed."""

    case: str
    contestant: str
    samples: list[Sample | None] = field(default_factory=list)
    failure: str = ""

    def fail(self, error: RunFailed) -> None:
        """Keep the place of a run that failed."""
        self.samples.append(None)
        self.failure = str(error)

    def median(self, measure: str) -> float | None:
        """The median of a field of Sample; None when no run succeeded."""
        values = [getattr(sample, measure) for sample in self.samples if sample is not None]
        return statistics.median(values) if values else None

    def ratio(self, other: Row, measure: str) -> float | None:
        """The median, over the rounds in which both succeeded, of this one's measure through the other's."""
        ratios = [
            getattr(mine, measure) / getattr(theirs, measure)
            for mine, theirs in zip(self.samples, other.samples, strict=False)
            if mine is not None and theirs is not None and getattr(theirs, measure)
        ]
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of all cases."""

    rows: list[Row]

    def row(self, case: str, contestant: str) -> Row | None:
        return next((row for row in self.rows if (row.case, row.contestant) == (case, contestant)), None)

    def ratio(self, case: str, contestant: str, other: str, measure: str) -> float | None:
        """How one contestant compares with another; None when one of them has no figure."""
        mine, theirs = self.row(case, contestant), self.row(case, other)
        return mine.ratio(theirs, measure) if mine and theirs else None


def measure_pushes(
    cases: Sequence[Case],
    contestants: Sequence[str],
    rounds: int,
    scratch: Path,
    *,
    tell: Callable[[str], None],
    cold: bool = False,
) -> Table:
    """Run everything; a contestant that fails keeps its place in the table, with the reason."""
    table = Table([])
    for case in cases:
        rows = [
            Row(case=case.name, contestant=contestant) for contestant in contestants if takes_part(contestant, case)
        ]
        table.rows.extend(rows)
        for number in range(rounds):
            for row in rows if number % 2 == 0 else reversed(rows):
                tell(f"{case.name}, {row.contestant}, round {number + 1} of {rounds}")
                _run(row, case, scratch, cold=cold)
    return table


def _run(row: Row, case: Case, scratch: Path, *, cold: bool) -> None:
    try:
        row.samples.append(push_once(row.contestant, case, scratch, cold=cold))
    except RunFailed as exc:
        row.fail(exc)
