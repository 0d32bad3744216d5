"""Does a process sleep? Told by how often its threads have waited for something, which is how often they were woken."""

from __future__ import annotations

import time
from pathlib import Path

QUIET_SECONDS = 1.0
"""The periodic checks come round every two seconds; a loop that polls comes round much sooner."""
SETTLE_SECONDS = 20.0
LOOK_SECONDS = 0.1


def wait_until_asleep(pid: int) -> None:
    """Return when the process has slept for a while; AssertionError when it goes on waking up."""
    deadline = time.monotonic() + SETTLE_SECONDS
    quiet_since, before = time.monotonic(), _wake_ups(pid)
    while time.monotonic() - quiet_since < QUIET_SECONDS:
        assert time.monotonic() < deadline, "it does not sleep"
        time.sleep(LOOK_SECONDS)
        if _wake_ups(pid) != before:
            quiet_since, before = time.monotonic(), _wake_ups(pid)


def _wake_ups(pid: int) -> int:
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        line = next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))
        total += int(line.split()[1])
    return total
