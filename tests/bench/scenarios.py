"""What has no rival to be paired with: the same archive again, memory, small files, latency, idleness and more.

Each function returns figures by name; `goals` knows what they should be. Times are in seconds.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.contestants import settle
from bench.process import cpu_seconds, memory, run_measured, wake_ups
from bench.registry import Registry
from bench.spooler import QUICK_POLL_SECONDS, Spooler, clean_environment

SMALL_FILE_BYTES = 10_000
QUIET_SECONDS = 3.0
"""A daemon that has just started or worked gets this long to come to rest."""

Figures = dict[str, float]


def again(archive: Path, scratch: Path) -> Figures:
    """Push an archive, and push it again under the same name."""
    settle(archive)
    with Registry() as registry, Spooler(scratch / "spooler", registry) as spooler:
        first = spooler.push([spooler.stage(archive, "again.tar")])
        seconds, read = spooler.push_again(spooler.stage(archive, "again.tar"))
    return {
        "again_seconds": seconds,
        "again_share": seconds / first.wall_seconds,
        "again_bytes_read": read,
    }


def one_changed_layer(before: Path, after: Path, alone: Path, scratch: Path) -> Figures:
    """Push an image, then the same with one layer changed; beside it, that layer alone into another registry."""
    for archive in (before, after, alone):
        settle(archive)
    with Registry() as registry, Spooler(scratch / "spooler", registry) as spooler:
        spooler.push([spooler.stage(before, "changed:before.tar")])
        settle(after)
        changed = spooler.push([spooler.stage(after, "changed:after.tar")], poll_seconds=QUICK_POLL_SECONDS)
    with Registry() as registry, Spooler(scratch / "spooler", registry) as spooler:
        settle(alone)
        lone = spooler.push([spooler.stage(alone, "changed:alone.tar")], poll_seconds=QUICK_POLL_SECONDS)
    return {
        "changed_seconds": changed.wall_seconds,
        "changed_alone_seconds": lone.wall_seconds,
        "changed_ratio": changed.wall_seconds / lone.wall_seconds,
    }


def four_jobs(archives: Sequence[Path], scratch: Path) -> Figures:
    """Peak memory while four archives are pushed at once; what stays of it afterwards."""
    with Registry() as registry, Spooler(scratch / "spooler", registry) as spooler:
        jobs = [
            spooler.stage(archives[number % len(archives)], f"job{number}{_suffix(archives, number)}")
            for number in range(4)
        ]
        usage = spooler.push(jobs)
        time.sleep(QUIET_SECONDS)
        resident, _ = memory(spooler.pid)
    return {"peak_bytes": usage.peak_bytes, "after_work_bytes": resident, "four_jobs_seconds": usage.wall_seconds}


def small_files(count: int, scratch: Path) -> Figures:
    """Many files of 10 KB, moved in at once; beside it a bare loop that sends as many requests of each kind."""
    with Registry() as registry, Spooler(scratch / "spooler", registry) as spooler:
        folder = scratch / "files"
        files = _small_files(folder, count)
        asked = registry.requests()
        staged = [spooler.stage(file, file.name) for file in files]
        before = cpu_seconds(registry.pid)
        usage = spooler.push(staged)
        registry_cpu = cpu_seconds(registry.pid) - before
        sent = registry.requests()
        sent.subtract(asked)
    each = {kind: round(number / count) for kind, number in sent.items() if number >= count / 2}
    bare = _bare_loop(folder, each, scratch)
    figures = {
        "files_seconds": usage.wall_seconds,
        "files_bare_seconds": bare,
        "files_ratio": usage.wall_seconds / bare,
        "files_cpu_seconds": usage.cpu_seconds,
        "files_registry_cpu_seconds": registry_cpu,
        "files_requests_each": sum(sent.values()) / count,
    }
    return figures | {f"files_requests_each, {kind}": number / count for kind, number in sorted(sent.items()) if number}


def latency(count: int, scratch: Path) -> Figures:
    """From `mv` to the tag being there, one file of 10 KB after the other."""
    times = []
    with Registry() as registry, Spooler(scratch / "spooler", registry) as spooler:
        for file in _small_files(scratch / "files", count):
            staged = spooler.stage(file, file.name)
            times.append(spooler.push([staged], poll_seconds=QUICK_POLL_SECONDS).wall_seconds)
            time.sleep(random.uniform(0.01, 0.05))
    ordered = sorted(times)
    return {
        "latency_first_seconds": times[0],
        "latency_seconds": statistics.median(times),
        "latency_p95_seconds": ordered[int(len(ordered) * 0.95)],
    }


def start(count: int, scratch: Path) -> Figures:
    """From the start of the process to the first good answer of `/ready`, and what is resident then."""
    times, sizes = [], []
    with Registry() as registry:
        for _ in range(count):
            with Spooler(scratch / "spooler", registry) as spooler:
                times.append(spooler.start_seconds)
                sizes.append(memory(spooler.pid)[0])
    return {"start_seconds": statistics.median(times), "start_bytes": statistics.median(sizes)}


def idle(seconds: float, scratch: Path) -> Figures:
    """A daemon that has nothing to do, and that nobody asks how it is: memory, wake-ups and processor time."""
    with Registry() as registry, Spooler(scratch / "spooler", registry, asked=False) as spooler:
        time.sleep(QUIET_SECONDS)
        woken, spent = wake_ups(spooler.pid), cpu_seconds(spooler.pid)
        time.sleep(seconds)
        return {
            "idle_wake_ups_per_second": (wake_ups(spooler.pid) - woken).total() / seconds,
            "idle_cpu_share": (cpu_seconds(spooler.pid) - spent) / seconds,
            "idle_bytes": memory(spooler.pid)[0],
        }


def _bare_loop(folder: Path, each: dict[str, int], scratch: Path) -> float:
    floor = Path(__file__).with_name("floor.py")
    with Registry() as registry:
        command = [sys.executable, str(floor), "files", str(folder), registry.host, json.dumps(each)]
        return run_measured(command, scratch / "floor.log", environment=clean_environment()).wall_seconds


def _small_files(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [folder / f"small{number:04}.txt" for number in range(count)]
    for file in files:
        file.write_bytes(os.urandom(SMALL_FILE_BYTES // 2).hex().encode())
    return files


def _suffix(archives: Sequence[Path], number: int) -> str:
    return archives[number % len(archives)].suffix
