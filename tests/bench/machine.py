"""The machine and the commit that figures belong to: figures of another machine compare with nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What decides how fast things can be here."""

    processor: str
    processors: int
    memory_gib: int
    kernel: str
    python: str

    @property
    def key(self) -> str:
        """Equal on the same machine, short enough for a line of history."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.processors} x {self.processor}, {self.memory_gib} GiB, Linux {self.kernel}, Python {self.python}"


def this_machine() -> Machine:
    """The machine we run on, as far as figures depend on it."""
    return Machine(
        processor=_processor(),
        processors=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)),
        kernel=platform.release(),
        python=platform.python_version(),
    )


def load() -> float:
    """How many tasks wanted a processor in the last minute: figures from a busy machine say so."""
    return os.getloadavg()[0]


def commit() -> str:
    """The commit that is measured, marked when the tree has changes beside it."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
