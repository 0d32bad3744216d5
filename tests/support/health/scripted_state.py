"""A state that tests write themselves: every list and counter of the spool's, set to what the test wants to see."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.spool.filename import Action
from registry_spooler.spool.scheduling.job import JobEnd, Outcome, Reason
from registry_spooler.spool.state import Condition, Counters, DeferredFile, OddEntryShown, RunningJob, WaitingFile
from registry_spooler.text import rfc3339


class ScriptedState:
    """Everything healthy and empty, until a test says otherwise. The same names as `SpoolState`."""

    def __init__(self) -> None:
        self.waiting_files: list[WaitingFile] = []
        self.running_jobs: list[RunningJob] = []
        self.deferred_files: list[DeferredFile] = []
        self.elsewhere_count = 0
        self.oldest_waiting_seconds = 0.0
        self.receipts: deque[dict[str, Any]] = deque(maxlen=50)
        self.failures: deque[dict[str, Any]] = deque(maxlen=50)
        self.jobs: Counter[tuple[str, str]] = Counter()
        self.retries: Counter[str] = Counter()
        self.sums = Counters()
        self.odd: tuple[OddEntryShown, ...] = ()
        self.stale_count = 0
        self.failed_count = 0
        self.last_success: float | None = None
        self.last_scan: float | None = time.time()
        self.on_job_end: Callable[[JobEnd], None] | None = None
        self.watching = Condition()
        self.watching.set(True)
        self.writable = Condition()
        self.writable.set(True)
        self.scanned = Condition()
        self.scanned.set(True)
        self.registry = Condition()

    @property
    def waiting_count(self) -> int:
        return len(self.waiting_files)

    @property
    def deferred_count(self) -> int:
        return len(self.deferred_files)

    @property
    def queue_depth(self) -> int:
        return len(self.waiting_files) + len(self.deferred_files) + len(self.running_jobs)

    def waiting(self, limit: int = 100) -> list[WaitingFile]:
        return self.waiting_files[:limit]

    def running(self) -> list[RunningJob]:
        return self.running_jobs

    def deferred(self, limit: int = 100) -> list[DeferredFile]:
        return self.deferred_files[:limit]

    def totals(self) -> Counters:
        return self.sums

    def end(
        self,
        outcome: Outcome = Outcome.DONE,
        *,
        action: Action = Action.PUSH,
        name: str = "app.tar",
        seconds: float = 1.0,
        archive_bytes: int = 1_000,
    ) -> None:
        """An attempt has ended, as the real state tells its observer."""
        self.jobs[action.value, outcome.value] += 1
        assert self.on_job_end is not None
        self.on_job_end(
            JobEnd(
                name=name,
                action=action,
                reference=None,
                outcome=outcome,
                attempt=1,
                seconds=seconds,
                archive_bytes=archive_bytes,
            )
        )


def waiting(
    name: str, reference: str | None, *, seconds: float = 0, size_bytes: int = 0, behind: str | None = None
) -> WaitingFile:
    return WaitingFile(
        name=name,
        action=Action.PUSH,
        reference=_reference(reference),
        since=time.time() - seconds,
        size_bytes=size_bytes,
        behind=behind,
    )


def running(
    name: str,
    reference: str | None,
    *,
    action: Action = Action.PUSH,
    attempt: int = 1,
    seconds: float = 0,
    progress: Progress | None = None,
) -> RunningJob:
    progress = progress or Progress()
    return RunningJob(
        name=name,
        action=action,
        reference=_reference(reference),
        attempt=attempt,
        started=time.time() - seconds,
        size_bytes=progress.bytes_total,
        progress=progress,
    )


def deferred(name: str, reference: str | None, error: str, *, next_try_in_seconds: float = 20) -> DeferredFile:
    now = time.time()
    return DeferredFile(
        name=name,
        action=Action.PUSH,
        reference=_reference(reference),
        since=now - 64,
        size_bytes=1_000_000,
        attempts=3,
        next_try=now + next_try_in_seconds,
        reason=Reason.STATUS,
        error=error,
    )


def failure(name: str, error: str, *, seconds_ago: float = 200) -> dict[str, Any]:
    return {
        "file": name,
        "action": "push",
        "reference": None,
        "error": error,
        "detail": "InvalidReference: Team/Shop",
        "attempts": 1,
        "time": rfc3339(time.time() - seconds_ago),
    }


def receipt(
    reference: str, *, size_bytes: int = 8_300_000, uploaded_bytes: int = 3_800_000, seconds_ago: float = 30
) -> dict[str, Any]:
    finished = time.time() - seconds_ago
    return {
        "file": reference.replace("/", "\\") + ".tar",
        "action": "push",
        "reference": reference,
        "digest": f"sha256:{abs(hash(reference)):016x}" + "5f9c2a81b7d0" * 4,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "size_bytes": size_bytes,
        "platforms": ["linux/amd64"],
        "missing": [],
        "blobs": {"uploaded": 2, "existing": 1, "mounted": 0},
        "uploaded_bytes": uploaded_bytes,
        "attempts": 1,
        "started": rfc3339(finished - 0.42),
        "finished": rfc3339(finished),
        "seconds": 0.42,
    }


def busy_state() -> ScriptedState:
    """A busy day: two pushes, a deletion, files that wait, that failed and that are done."""
    state = ScriptedState()
    state.running_jobs = [
        running(
            "team\\shop\\api:2026.11.3.tar.gz",
            "team/shop/api:2026.11.3",
            seconds=12,
            progress=Progress(
                bytes_total=1_340_000_000, bytes_done=415_000_000, bytes_sent=310_000_000, bytes_skipped=98_000_000
            ),
        ),
        running(
            "@release-26.11.tar",
            None,
            attempt=2,
            seconds=41,
            progress=Progress(bytes_total=5_100_000_000, bytes_done=2_350_000_000),
        ),
        running("team\\old:1.0!", "team/old:1.0", action=Action.DELETE),
    ]
    state.waiting_files = [
        waiting(f"team\\worker-{n}.tar", f"team/worker-{n}", seconds=30 - n, size_bytes=48_000_000 * n)
        for n in range(1, 4)
    ]
    state.deferred_files = [
        deferred(
            "team\\models\\weights:q4.tar.zst",
            "team/models/weights:q4",
            "the registry answered 503 to PATCH http://localhost:5000/v2/team/models/weights/blobs/uploads/… "
            "(UNAVAILABLE: service is starting)",
        )
    ]
    state.failures.append(
        failure(
            "Team\\Shop.tar",
            "the file name 'Team\\Shop.tar' does not name an image: 'Team' has upper-case letters, "
            "and repository names are lower-case",
        )
    )
    state.failed_count = 1
    state.receipts.extend(
        (
            receipt("alpine:3.22", seconds_ago=400),
            receipt("team/shop/web:2026.11.2", size_bytes=212_000_000, uploaded_bytes=1_200_000, seconds_ago=300),
            receipt("registry.k8s.io/pause:3.10", size_bytes=743_000, uploaded_bytes=0, seconds_ago=198),
        )
    )
    state.jobs.update({("push", "done"): 1287, ("delete", "done"): 12, ("push", "failed"): 1, ("push", "deferred"): 5})
    state.retries.update({"status": 4, "unreachable": 1})
    state.sums = Counters(bytes_read=9_000_000_000, bytes_sent=2_000_000_000, blobs_uploaded=310, blobs_existing=1940)
    state.oldest_waiting_seconds = 64.0
    state.last_success = time.time() - 198
    state.stale_count = 1
    state.odd = (OddEntryShown("backups", "directory"),)
    return state


def _reference(text: str | None) -> Reference | None:
    return None if text is None else Reference.parse(text)
