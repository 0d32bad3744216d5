"""The status: all that a program or a person may want to know at once, as JSON and as a page.

File names, and what a registry says, are anybody's words. A browser shows them as text whatever they hold; a terminal
that prints an answer as it came would obey some of them.

The page is drawn from it, and `registry-client status` prints it. Lists are cut, their counts are not.

The policy names the style and the script of the page by their hashes, so text that got into the page by any way
could not become either. https://www.w3.org/TR/CSP3/#grammardef-hash-source
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import orjson

from registry_spooler.health.probes import Checks, Volume
from registry_spooler.health.remote import RemoteWork
from registry_spooler.oci.reference import Reference
from registry_spooler.spool.filename import Action
from registry_spooler.spool.state import SpoolState
from registry_spooler.text import encodable, rfc3339, rfc3339_or_none, terminal_safe_json

_TEXT_MAX: Final = 1_000
"""Characters of one text: a sentence of ours has 200, a hostile registry's may have any number."""


def safe_json(document: Mapping[str, Any]) -> bytes:
    """Return one line of JSON that a terminal can show as it is."""
    return terminal_safe_json(orjson.dumps(_bounded(document), default=str, option=orjson.OPT_APPEND_NEWLINE))


def _bounded(value: Any, items_max: int | None = None) -> Any:
    """Return the value with texts no longer than anybody reads, in Unicode, and at most `items_max` items in a list."""
    if isinstance(value, str):
        return encodable(value if len(value) <= _TEXT_MAX else value[: _TEXT_MAX - 1] + "…")
    if isinstance(value, Mapping):
        return {str(key): _bounded(inner, items_max) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_bounded(inner, items_max) for inner in value[:items_max]]
    return value


LISTED_FILES: Final = 100
"""The most files of one kind in one document."""
LISTED_RECORDS: Final = 20
_LISTED_INNER: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What does not change while the process runs."""

    version: str
    registry: str
    """The registry's address, redacted."""
    directory: str
    started: float
    """Wall-clock seconds since the epoch."""
    pull_host: str = ""
    """Where the nodes reach the registry; empty when nobody said so."""
    spool_limit_bytes: int | None = None
    """What the spool directory may hold; None: what its file system can."""


class Status:
    """Writes the document. Loop thread only; reads memory and nothing else."""

    def __init__(
        self, about: About, state: SpoolState, checks: Checks, volume: Volume, remote: RemoteWork | None = None
    ) -> None:
        self._about, self._state, self._checks, self._volume = about, state, checks, volume
        self._remote = remote or RemoteWork()

    def document(self) -> dict[str, Any]:
        """The whole status, now."""
        now = time.time()
        checks = self._checks
        checks.update()
        return {
            "version": self._about.version,
            "time": rfc3339(now),
            "started": rfc3339(self._about.started),
            "uptime_seconds": round(now - self._about.started, 3),
            "live": checks.is_live,
            "ready": checks.is_ready,
            "checks": {check.name: check.to_json() for check in (*checks.live, *checks.ready)},
            "registry": {
                "address": self._about.registry,
                "pull_host": self._about.pull_host or None,
                "up": checks.registry.passing,
                "since": rfc3339(checks.registry.since),
                "detail": checks.registry.detail,
            },
            "spool": self._spool(),
            "queue": self._queue(now),
            "running": self._running(now),
            "waiting": self._waiting(now),
            "deferred": self._deferred(now),
            "receipts": _newest(self._state.receipts),
            "failures": _newest(_latest_of_each_file(self._state.failures)),
            "odd": [{"name": entry.name, "kind": entry.kind} for entry in self._state.odd[:LISTED_FILES]],
            "totals": self._totals(),
            "remote": self._remote_work(now),
        }

    def _spool(self) -> dict[str, Any]:
        state, capacity = self._state, self._volume.capacity
        return {
            "directory": self._about.directory,
            "writable": state.writable.holds,
            "free_bytes": capacity.free_bytes,
            "size_bytes": capacity.size_bytes,
            "limit_bytes": capacity.limit_bytes,
            "free_inodes": capacity.free_inodes,
            "inodes": capacity.inodes,
            "failed_files": state.failed_count,
            "stale_files": state.stale_count,
            "odd_entries": len(state.odd),
            "last_scan": rfc3339_or_none(state.last_scan),
        }

    def _queue(self, now: float) -> dict[str, Any]:
        state = self._state
        last_success = state.last_success
        return {
            "depth": state.queue_depth,
            "running": len(state.running()),
            "waiting": state.waiting_count,
            "deferred": state.deferred_count,
            "elsewhere": state.elsewhere_count,
            "oldest_waiting_seconds": round(state.oldest_waiting_seconds, 3),
            "last_success": rfc3339_or_none(last_success),
            "last_success_seconds_ago": None if last_success is None else round(now - last_success, 3),
        }

    def _running(self, now: float) -> list[dict[str, Any]]:
        return [
            {
                **_job(job.name, job.action, job.reference),
                "attempt": job.attempt,
                "started": rfc3339(job.started),
                "seconds": round(now - job.started, 3),
                "bytes_total": job.progress.bytes_total,
                "bytes_done": job.progress.bytes_done,
                "bytes_sent": job.progress.bytes_sent,
                "bytes_skipped": job.progress.bytes_skipped,
            }
            for job in self._state.running()[:LISTED_FILES]
        ]

    def _waiting(self, now: float) -> list[dict[str, Any]]:
        return [
            {
                **_job(file.name, file.action, file.reference),
                "size_bytes": file.size_bytes,
                "since": rfc3339(file.since),
                "seconds": round(now - file.since, 3),
                "behind": file.behind,
            }
            for file in self._state.waiting(LISTED_FILES)
        ]

    def _deferred(self, now: float) -> list[dict[str, Any]]:
        return [
            {
                **_job(file.name, file.action, file.reference),
                "attempts": file.attempts,
                "since": rfc3339(file.since),
                "seconds": round(now - file.since, 3),
                "next_try": rfc3339(file.next_try),
                "next_try_in_seconds": round(max(0.0, file.next_try - now), 3),
                "reason": file.reason.value,
                "error": file.error,
            }
            for file in self._state.deferred(LISTED_FILES)
        ]

    def _remote_work(self, now: float) -> dict[str, Any]:
        remote = self._remote
        return {
            "transfers": [transfer.to_json(now) for transfer in remote.transfers[:LISTED_FILES]],
            "running": len(remote.transfers) - remote.waiting,
            "waiting": remote.waiting,
            "calls": {f"{command}_{outcome}": count for (command, outcome), count in sorted(remote.calls.items())},
            "received_bytes": remote.received_bytes,
            "sent_bytes": remote.sent_bytes,
            "delta": {"layers": remote.rebuilt_layers, "saved_bytes": remote.saved_bytes},
            "images": remote.images,
            "pushed": _newest(remote.pushed),
        }

    def _totals(self) -> dict[str, Any]:
        totals = self._state.totals()
        return {
            "jobs": {f"{action}_{outcome}": count for (action, outcome), count in sorted(self._state.jobs.items())},
            "bytes_read": totals.bytes_read,
            "bytes_sent": totals.bytes_sent,
            "bytes_skipped": totals.bytes_skipped,
            **totals.to_json(),
            "retries": dict(sorted(self._state.retries.items())),
        }


def _job(name: str, action: Action, reference: Reference | None) -> dict[str, Any]:
    return {
        "file": name,
        "action": action.value,
        "reference": None if reference is None else str(reference),
    }


def _latest_of_each_file(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the later one of two records of a file that failed again after a retry."""
    latest: dict[object, dict[str, Any]] = {}
    for record in records:
        latest.pop(record.get("file"), None)
        latest[record.get("file")] = record
    return list(latest.values())


def _newest(records: Iterable[dict[str, Any]]) -> list[Any]:
    return [_bounded(record, _LISTED_INNER) for record in list(records)[: -LISTED_RECORDS - 1 : -1]]


_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)
_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_FIRST: Final = b'<script type="application/json" id="first">null</script>'
"""Where the page has the status that it shows at once; a block of data, which no policy concerns."""


@dataclass(frozen=True, slots=True)
class Page:
    """The page around the status that it shows first, and its content security policy."""

    before: bytes
    after: bytes
    policy: str

    @classmethod
    def read(cls) -> Page:
        """Read it from the package. Blocking; a few KiB."""
        content = files("registry_spooler.health").joinpath("page.html").read_bytes()
        policy = "; ".join(
            (
                "default-src 'none'",
                f"style-src {_hashes(_STYLE, content)}",
                f"script-src {_hashes(_SCRIPT, content)}",
                "connect-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )
        start, _, end = _FIRST.partition(b"null")
        before, _, after = content.partition(_FIRST)
        return cls(before + start, end + after, policy)

    def showing(self, status: bytes) -> bytes:
        """Return the page with a status, which is JSON: it holds `<` only in strings, where it can be spelled."""
        return b"".join((self.before, status.strip().replace(b"<", b"\\u003c"), self.after))


def _hashes(element: re.Pattern[bytes], content: bytes) -> str:
    digests = (hashlib.sha256(found).digest() for found in element.findall(content))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
