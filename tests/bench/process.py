"""What a process takes of the machine: time on the clock, time of the processors, memory.

A program that ends is run by `run_measured`. Of a program that stays, a `Gauge` gives the difference between two
instants. Peak memory is the kernel's own high-water mark (VmHWM). `ru_maxrss` would not do: it
survives `exec`, so a small program seems as large as the one that started it.
"""

from __future__ import annotations

import collections
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_MILLISECONDS = 10
_KIB = 1024


class RunFailed(Exception):
    """A contestant did not do its work; the table says so, and the bench goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one run took."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def run_measured(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, timeout_seconds: float = 3600
) -> Usage:
    """Run a program to its end; its children count as it does. RunFailed holds the end of its output."""
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            peak = _watch(process.pid, began + timeout_seconds)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.monotonic() - began
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RunFailed(f"{command[0]} ended with {process.returncode}: {tail(log)}")
    return Usage(wall_seconds=wall, cpu_seconds=usage.ru_utime + usage.ru_stime, peak_bytes=peak)


def tail(log: Path, limit_bytes: int = 600) -> str:
    """The end of a program's output, as one line."""
    return " ".join(log.read_bytes()[-limit_bytes:].decode(errors="replace").split())


def cpu_seconds(pid: int) -> float:
    """The processors' time that a process has used so far, all its threads together, to the nanosecond."""
    # The clock of another process: see clock_getcpuclockid(3); 2 stands for CPUCLOCK_SCHED.
    return time.clock_gettime(~pid << 3 | 2)


def memory(pid: int) -> tuple[int, int]:
    """Bytes that are resident now, and the most that ever were."""
    fields = _fields(Path(f"/proc/{pid}/status"))
    return int(fields["VmRSS"].split()[0]) * _KIB, int(fields["VmHWM"].split()[0]) * _KIB


def forget_peak(pid: int) -> None:
    """Let the high-water mark start again from what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def bytes_read(pid: int) -> int:
    """Bytes that a process has got from `read` and its kin so far, sockets included."""
    return int(_fields(Path(f"/proc/{pid}/io"))["rchar"])


def wake_ups(pid: int) -> collections.Counter[str]:
    """How often each thread has waited for something and was woken; to be subtracted, since threads come and go."""
    counts: collections.Counter[str] = collections.Counter()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        counts[status.parent.name] = int(_fields(status)["voluntary_ctxt_switches"])
    return counts


def _watch(pid: int, deadline: float) -> int:
    """Wait for the end of a process, without reaping it; returns the peak memory of its largest member."""
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        peak = 0
        while not ended.poll(POLL_MILLISECONDS):
            peak = max(peak, *(_peak(member) for member in _family(pid)))
            if time.monotonic() > deadline:
                raise RunFailed("it did not end in time")
        return peak
    finally:
        os.close(descriptor)


def _family(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(child))]


def _peak(pid: int) -> int:
    try:
        return memory(pid)[1]
    except (OSError, KeyError):  # it has just ended
        return 0


def _fields(path: Path) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in path.read_text().splitlines())}
