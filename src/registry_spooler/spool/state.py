"""What the spool is doing, in memory: the source of the status page, the metrics and the probes.

Plain values, written by the spool and read by whoever wants to, all in the event loop's thread. File names in it
are escaped for people. Times are seconds since the epoch, sizes bytes.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any, Final

from registry_spooler.oci.reference import Reference
from registry_spooler.progress import BlobCounts, Progress
from registry_spooler.spool.filename import Action, display
from registry_spooler.spool.scheduling.job import Entry, JobEnd, Outcome, Phase, Reason
from registry_spooler.spool.scheduling.queue import Queue
from registry_spooler.text import encodable

RECORDS_SHOWN: Final = 50
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFile:
    """A file whose turn has not come."""

    name: str
    action: Action
    reference: Reference | None
    since: float
    size_bytes: int
    behind: str | None = None
    """The file that was put off and that it has to wait for, when there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredFile:
    """A file that is going to be tried again."""

    name: str
    action: Action
    reference: Reference | None
    since: float
    size_bytes: int
    attempts: int
    next_try: float
    reason: Reason
    error: str
    """One sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A job that is being done. `progress` is live."""

    name: str
    action: Action
    reference: Reference | None
    attempt: int
    started: float
    size_bytes: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class OddEntryShown:
    """Something in the spool that is no regular file."""

    name: str
    kind: str


@dataclass(slots=True, kw_only=True)
class Counters(BlobCounts):
    """What all jobs together have done since the start."""

    bytes_read: int = 0
    bytes_sent: int = 0
    bytes_skipped: int = 0

    def add(self, progress: Progress) -> None:
        """Count what one job has done."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(progress, field.name))


@dataclass(slots=True)
class Condition:
    """Something that is so, or is not, since a certain time."""

    holds: bool = False
    since: float | None = None
    """None until it was first found out."""
    error: str = ""
    """Why it does not hold: one sentence."""

    def set(self, holds: bool, error: str = "") -> bool:
        """Note how it is now; return whether that has changed."""
        changed = self.since is None or self.holds != holds
        if changed:
            self.holds, self.since = holds, time.time()
        self.error = "" if holds else error
        return changed


class SpoolState:
    """The state of one spool."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._running: dict[str, RunningJob] = {}
        self._totals = Counters()
        self.jobs: Counter[tuple[str, str]] = Counter()
        """Attempts, by action and outcome."""
        self.retries: Counter[str] = Counter()
        """By reason: those of the spool (`Reason`) and those inside a push (`Progress.retries`)."""
        self.receipts: deque[dict[str, Any]] = deque(maxlen=RECORDS_SHOWN)
        self.failures: deque[dict[str, Any]] = deque(maxlen=RECORDS_SHOWN)
        self.odd: tuple[OddEntryShown, ...] = ()
        self.stale_count = 0
        self.failed_count = 0
        self.last_success: float | None = None
        self.last_scan: float | None = None
        self.watching = Condition()
        self.writable = Condition()
        self.scanned = Condition()
        self.registry = Condition()
        """Whether the registry answers, as the health port's ping found it last."""
        self.on_job_end: Callable[[JobEnd], None] | None = None

    @property
    def waiting_count(self) -> int:
        """Files whose turn has not come."""
        return self._queue.count(Phase.WAITING)

    @property
    def deferred_count(self) -> int:
        """Files that are going to be tried again."""
        return self._queue.count(Phase.DEFERRED)

    @property
    def elsewhere_count(self) -> int:
        """Files that another spooler works on, or whose repository it works on."""
        return self._queue.count(Phase.ELSEWHERE)

    @property
    def queue_depth(self) -> int:
        """All files that the spool knows and that are not done, those of other spoolers included."""
        return len(self._queue)

    @property
    def oldest_waiting_seconds(self) -> float:
        """The age of the file that has waited longest, for its turn or for another try."""
        oldest = self._queue.oldest()
        return max(0.0, time.time() - oldest.since) if oldest is not None else 0.0

    @property
    def held_for(self) -> Reason | None:
        """Why all jobs wait, when they do for one and the same reason."""
        return self._queue.held_for

    def waiting(self, limit: int = 100) -> list[WaitingFile]:
        """The oldest files that wait."""
        deferred = self._queue.in_phase(Phase.DEFERRED, limit)
        return [
            WaitingFile(
                name=display(entry.name),
                action=entry.action,
                reference=entry.reference,
                since=entry.since,
                size_bytes=entry.identity.size,
                behind=next((display(other.name) for other in deferred if entry.is_behind(other)), None),
            )
            for entry in self._queue.in_phase(Phase.WAITING, limit)
        ]

    def deferred(self, limit: int = 100) -> list[DeferredFile]:
        """The oldest files that are deferred."""
        return [
            DeferredFile(
                name=display(entry.name),
                action=entry.action,
                reference=entry.reference,
                since=entry.since,
                size_bytes=entry.identity.size,
                attempts=entry.attempts,
                next_try=entry.next_try,
                reason=entry.reason or Reason.INTERNAL,
                error=entry.error,
            )
            for entry in self._queue.in_phase(Phase.DEFERRED, limit)
        ]

    def running(self) -> list[RunningJob]:
        """The jobs that are being done."""
        return list(self._running.values())

    def totals(self) -> Counters:
        """What has been done so far, by the running jobs too. It only grows."""
        totals = Counters()
        for field in fields(Counters):
            setattr(totals, field.name, getattr(self._totals, field.name))
        for job in self._running.values():
            totals.add(job.progress)
        return totals

    # Written by the spool

    def job_started(self, entry: Entry, progress: Progress, started: float) -> None:
        """A job begins: the file may have failed before, and is being tried again."""
        self._forget_failure(encodable(entry.name))
        self._running[entry.key] = RunningJob(
            name=display(entry.name),
            action=entry.action,
            reference=entry.reference,
            attempt=entry.attempts,
            started=started,
            size_bytes=progress.bytes_total,
            progress=progress,
        )

    def job_failed(self, record: dict[str, Any]) -> None:
        """A file has come to `.failed/`: the latest record of its name counts."""
        self._forget_failure(record["file"])
        self.failures.append(record)

    def keep_failures(self, names: Collection[str], shown: Collection[dict[str, Any]]) -> None:
        """These are in `.failed/`: forget the others, of what was `shown` before somebody looked there."""
        self.failed_count = len(names)
        there = {encodable(name) for name in names}
        for record in shown:
            if record["file"] not in there and record in self.failures:
                self.failures.remove(record)

    def _forget_failure(self, file: str) -> None:
        for record in [record for record in self.failures if record["file"] == file]:
            self.failures.remove(record)

    def progress_of(self, entry: Entry) -> Progress:
        """What the file's job has done so far."""
        running = self._running.get(entry.key)
        return running.progress if running is not None else Progress()

    def job_put_back(self, entry: Entry) -> bool:
        """Note that a job has given way; return whether it had begun."""
        running = self._running.pop(entry.key, None)
        if running is not None:
            self._totals.add(running.progress)
        return running is not None

    def job_ended(self, entry: Entry, end: JobEnd) -> None:
        """An attempt has ended: count it, and tell who observes."""
        running = self._running.pop(entry.key, None)
        if running is not None:
            self._totals.add(running.progress)
            self.retries.update(running.progress.retries)
        self.jobs[end.action.value, end.outcome.value] += 1
        if end.outcome is Outcome.DEFERRED and end.reason is not None:
            self.retries[end.reason.value] += 1
        if end.outcome is Outcome.DONE:
            self.last_success = time.time()
        if self.on_job_end is not None:
            try:
                self.on_job_end(end)
            except Exception:  # noqa: BLE001 - whatever it is, it is no reason to stop the spool
                _log.exception("an observer of the spool failed")
