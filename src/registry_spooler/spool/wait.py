"""Waiting for what becomes of one file: for `registry-client wait NAME`.

A file that is there is waited for until it is gone from the spool, which it is only after its receipt, or its error
record, has been written. The record counts when it is no older than the file: an older one speaks of an
earlier file of that name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import orjson

from registry_spooler.errors import SpoolerError
from registry_spooler.filename import is_ignored
from registry_spooler.spool.failures import error_path
from registry_spooler.spool.layout import Layout
from registry_spooler.spool.names import display
from registry_spooler.spool.receipts import receipt_path
from registry_spooler.spool.watch import open_watch
from registry_spooler.threads import in_thread

POLL_SECONDS: Final = 1.0
"""How often to look, for file systems that send no events."""
_ASIDE_POLL_SECONDS: Final = 0.05


class FileNotInSpool(SpoolerError):
    """There is no such file in the spool, nor a record of one."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{display(self.name)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """What became of the file. `record` is the receipt, or else the error record."""

    done: bool
    record: dict[str, Any]


async def wait_for_outcome(directory: Path, name: str) -> WaitOutcome:
    """Wait until the file is done or has failed; for how long is the caller's choice (`anyio.fail_after`).

    A file that was dealt with before has its outcome at once. FileNotInSpool when there is, or was, none, and when it
    was taken out of the spool by hand.
    """
    layout = Layout(directory)
    if is_ignored(name):
        raise FileNotInSpool(name, "a file of that name is being written, or the spooler's own, and never pushed")
    seen_ns = await in_thread(_arrived_ns, layout, name)
    if seen_ns is not None:
        await _until_gone(layout, name)
    outcome = await in_thread(_newest_record, layout, name, seen_ns or 0)
    if outcome is None:
        reason = "it was taken out of the spool by hand" if seen_ns else "there is no such file in the spool"
        raise FileNotInSpool(name, reason)
    return outcome


async def _until_gone(layout: Layout, name: str) -> None:
    try:
        async with open_watch(layout.directory) as watch, anyio.create_task_group() as tasks:
            tasks.start_soon(watch.read)
            while (wait_seconds := await in_thread(_look_again_after, layout, name)) is not None:
                with anyio.move_on_after(wait_seconds):
                    await watch.changes()
            tasks.cancel_scope.cancel()
    except OSError:  # no more watches to be had
        while (  # noqa: ASYNC110 - there is nobody who could set an event
            wait_seconds := await in_thread(_look_again_after, layout, name)
        ) is not None:
            await anyio.sleep(wait_seconds)


def _look_again_after(layout: Layout, name: str) -> float | None:
    """None when the file is gone; else after how many seconds to look again, if no event comes before."""
    if os.path.lexists(layout.directory / name):
        return POLL_SECONDS
    return _ASIDE_POLL_SECONDS if _find_aside(layout, name) is not None else None


def _arrived_ns(layout: Layout, name: str) -> int | None:
    """When the file came to the spool, by the file system's clock; None when it is not there."""
    for path in (layout.directory / name, _find_aside(layout, name)):
        try:
            if path is not None:
                return os.lstat(path).st_ctime_ns if path.parent == layout.directory else 1
        except FileNotFoundError:
            continue
    return None


def _find_aside(layout: Layout, name: str) -> Path | None:
    """The file while a spooler has it set aside, for the moment between its record and its end."""
    try:
        return next(layout.work.glob(f"*/*/{_literal(name)}"), None)
    except OSError:
        return None


def _literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _newest_record(layout: Layout, name: str, not_before_ns: int) -> WaitOutcome | None:
    found: list[tuple[int, bool, Path]] = []
    for done, path in ((True, receipt_path(layout.receipts, name)), (False, error_path(layout.failed, name))):
        try:
            written_ns = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
        if written_ns >= not_before_ns:
            found.append((written_ns, done, path))
    if not found:
        return None
    _, done, path = max(found)
    return WaitOutcome(done, orjson.loads(path.read_bytes()))
