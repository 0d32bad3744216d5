"""The memory of earlier runs, one JSON line each, in the user's state folder: so that a slower commit shows.

Only runs of the same machine and the same set of archives compare with each other.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NOTABLE = 0.05
"""Differences below this are noise, even between medians."""


def history_file() -> Path:
    """Where the lines are kept."""
    root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return root / "registry-spooler" / "bench.jsonl"


def remember(entry: dict[str, Any]) -> None:
    """Add a run."""
    path = history_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(entry) + "\n")


def last_like(machine: str, kind: str) -> dict[str, Any] | None:
    """The newest earlier run of that machine and kind."""
    try:
        lines = history_file().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        entry: dict[str, Any] = json.loads(line)
        if (entry["machine"], entry["kind"]) == (machine, kind):
            return entry
    return None


def compare(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Sentences about the figures that have changed notably, the worst first."""
    changes = []
    for name, value in now["figures"].items():
        old = before["figures"].get(name)
        if old and value is not None and abs(value / old - 1) > NOTABLE:
            changes.append((value / old - 1, f"{name}: {old:.4g} -> {value:.4g} ({value / old - 1:+.0%})"))
    return [sentence for _, sentence in sorted(changes, reverse=True)]
