"""Waiting for what becomes of one file: for `registry-client wait NAME`.

A file that is there is waited for until it is gone from the spool, which it is only after its receipt, or its error
record, has been written. The record counts when it is no older than the file: an older one speaks of an
earlier file of that name.
"""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import orjson

from registry_spooler.aio import in_thread
from registry_spooler.errors import SpoolerError
from registry_spooler.spool.directory.files import FAILED, RECEIPTS, WORK, open_own
from registry_spooler.spool.filename import display, is_ignored
from registry_spooler.spool.monitor import open_watch
from registry_spooler.spool.records import error_name, receipt_name

POLL_SECONDS: Final = 1.0
"""How often to look, for file systems that send no events."""
_ASIDE_POLL_SECONDS: Final = 0.05
_RECORD_MAX_BYTES: Final = 64 << 20
"""A bundle's receipt has a few hundred bytes for each of its images."""


class FileNotInSpool(SpoolerError):
    """There is no such file in the spool, nor a record of one."""

    name: str
    reason: str

    def _sentence(self) -> str:
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
    if is_ignored(name):
        raise FileNotInSpool(name, "a file of that name is being written, or the spooler's own, and never pushed")
    seen_ns = await in_thread(_arrived_ns, directory, name)
    if seen_ns is not None:
        await _until_gone(directory, name)
    outcome = await in_thread(_newest_record, directory, name, seen_ns or 0)
    if outcome is None:
        reason = "it was taken out of the spool by hand" if seen_ns else "there is no such file in the spool"
        raise FileNotInSpool(name, reason)
    return outcome


async def _until_gone(directory: Path, name: str) -> None:
    try:
        async with open_watch(directory) as watch, anyio.create_task_group() as tasks:
            tasks.start_soon(watch.read)
            while (wait_seconds := await in_thread(_look_again_after, directory, name)) is not None:
                with anyio.move_on_after(wait_seconds):
                    await watch.changes()
            tasks.cancel_scope.cancel()
    except OSError:  # no more watches to be had
        while (  # noqa: ASYNC110 - there is nobody who could set an event
            wait_seconds := await in_thread(_look_again_after, directory, name)
        ) is not None:
            await anyio.sleep(wait_seconds)


def _look_again_after(directory: Path, name: str) -> float | None:
    """None when the file is gone; else after how many seconds to look again, if no event comes before."""
    if os.path.lexists(directory / name):
        return POLL_SECONDS
    return _ASIDE_POLL_SECONDS if _find_aside(directory, name) is not None else None


def _arrived_ns(directory: Path, name: str) -> int | None:
    """When the file came to the spool, by the file system's clock; None when it is not there."""
    for path in (directory / name, _find_aside(directory, name)):
        try:
            if path is not None:
                return os.lstat(path).st_ctime_ns if path.parent == directory else 1
        except FileNotFoundError:
            continue
    return None


def _find_aside(directory: Path, name: str) -> Path | None:
    """The file while a spooler has it set aside, for the moment between its record and its end."""
    try:
        return next((directory / WORK).glob(f"*/*/{_literal(name)}"), None)
    except OSError:
        return None


def _literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _newest_record(directory: Path, name: str, not_before_ns: int) -> WaitOutcome | None:
    found: list[tuple[int, bool, bytes]] = []
    for done, own, record in ((True, RECEIPTS, receipt_name(name)), (False, FAILED, error_name(name))):
        with suppress(FileNotFoundError), open_own(directory, own) or nullcontext() as folder:
            if folder is not None:
                found.append((folder.status(record).st_mtime_ns, done, folder.read(record, _RECORD_MAX_BYTES)))
    newest = max((record for record in found if record[0] >= not_before_ns), default=None)
    return WaitOutcome(newest[1], orjson.loads(newest[2])) if newest is not None else None
