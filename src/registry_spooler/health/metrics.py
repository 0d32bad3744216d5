"""The metrics, in both of Prometheus' formats: read from the state at each scrape, and two histograms of ended jobs.

No label takes a value from a file name, a reference or an error, so the number of series is fixed by this file.
https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from registry_spooler.aio import in_thread
from registry_spooler.health.probes import Checks, LoopLag, Volume
from registry_spooler.health.remote import COMMANDS, OUTCOMES, RemoteWork
from registry_spooler.spool.filename import Action
from registry_spooler.spool.scheduling.job import JobEnd, Outcome, Reason
from registry_spooler.spool.state import SpoolState

_SCRAPED: Final = frozenset({"application/openmetrics-text", "application/vnd.google.protobuf", "text/plain"})


def is_scraper(accept: str) -> bool:
    """Return whether only scrapers send such an `Accept`: a browser and curl name none of these types."""
    return not _SCRAPED.isdisjoint(entry.partition(";")[0].strip() for entry in accept.lower().split(","))


_ACTIONS: Final = tuple(action.value for action in Action)
_OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)
_REASONS: Final = tuple(reason.value for reason in Reason)
_REQUEST_REASONS: Final = ("unreachable", "status")
_SECONDS_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_BYTES_BUCKETS: Final = (*(float(step * 10**power) for power in range(3, 11) for step in (1, 3)), 1e11)

_Labelled = Iterable[tuple[Mapping[str, str], float]]


class Metrics:
    """The registry of one process' metrics. To be told of ended jobs: `job_ended`."""

    def __init__(
        self,
        version: str,
        state: SpoolState,
        checks: Checks,
        volume: Volume,
        lag: LoopLag,
        request_retries: Mapping[str, int],
        remote: RemoteWork | None = None,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ended = _EndedJobs()
        self.job_ended = ended.note
        self._registry.register(_Families(version, state, checks, volume, lag, request_retries))
        self._registry.register(_RemoteFamilies(remote or RemoteWork()))
        self._registry.register(ended)
        self.process = ProcessFamilies()
        self._registry.register(self.process)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that an `Accept` header prefers, and its content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # a version in it is not a number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type


class _EndedJobs(Collector):
    """Two histograms of jobs that have ended, one observation per attempt that ran."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "registry_spooler_job_seconds",
            "How long an attempt at a file took.",
            ("action", "outcome"),
            registry=None,
            buckets=_SECONDS_BUCKETS,
        )
        self._bytes = Histogram(
            "registry_spooler_archive_bytes",
            "The sizes of the files that were pushed.",
            registry=None,
            buckets=_BYTES_BUCKETS,
        )
        for action in _ACTIONS:
            for outcome in _OUTCOMES:
                self._seconds.labels(action, outcome)

    def note(self, end: JobEnd) -> None:
        """Count one ended attempt."""
        self._seconds.labels(end.action.value, end.outcome.value).observe(end.seconds)
        if end.action is Action.PUSH and end.outcome is Outcome.DONE:
            self._bytes.observe(end.archive_bytes)

    def collect(self) -> Iterator[Metric]:
        """Both, without the `_created` series that the text format would show as gauges of their own."""
        for histogram in (self._seconds, self._bytes):
            for metric in histogram.collect():
                metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
                yield metric


class ProcessFamilies(Collector):
    """Memory, processor time and open files of this process: read from /proc in a thread, some seconds old."""

    def __init__(self) -> None:
        self._process = ProcessCollector(registry=None)
        self._families: tuple[Metric, ...] = ()

    def collect(self) -> Iterator[Metric]:
        """What was read last."""
        yield from self._families

    async def read(self) -> None:
        """Read once."""
        self._families = await in_thread(lambda: tuple(self._process.collect()))


class _Families(Collector):
    """All that is read from the spool's state and the checks at the time of the scrape."""

    def __init__(
        self,
        version: str,
        state: SpoolState,
        checks: Checks,
        volume: Volume,
        lag: LoopLag,
        request_retries: Mapping[str, int],
    ) -> None:
        self._request_retries = request_retries
        self._version, self._state, self._checks, self._volume, self._lag = version, state, checks, volume, lag

    def collect(self) -> Iterator[Metric]:
        """Family by family."""
        self._checks.update()
        yield from self._about_work()
        yield from self._about_spool()
        yield from self._about_process()

    def _about_work(self) -> Iterator[Metric]:
        state, totals = self._state, self._state.totals()
        yield _counter("jobs", "Attempts that have ended, by action and outcome.", _job_counts(state))
        yield _counter("read_bytes", "Bytes read from files in the spool.", totals.bytes_read)
        yield _counter("sent_bytes", "Bytes of blobs sent to the registry, retries included.", totals.bytes_sent)
        yield _counter("skipped_bytes", "Bytes of blobs that the registry already had.", totals.bytes_skipped)
        yield _counter("blobs", "Blobs, by what became of them.", _by("how", totals.to_json()["blobs"]))
        yield _counter("retries", "Retries, by reason.", _by("reason", _retries(state)))
        requests = {reason: self._request_retries.get(reason, 0) for reason in _REQUEST_REASONS}
        yield _counter(
            "request_retries",
            "Requests to the registry that were sent again: no answer came, or a status that may pass.",
            _by("reason", requests),
        )
        queue = {
            "running": len(state.running()),
            "waiting": state.waiting_count,
            "deferred": state.deferred_count,
            "elsewhere": state.elsewhere_count,
        }
        yield _gauge(
            "queue_files", "Files in the spool that are to be pushed or deleted, by state.", _by("state", queue)
        )
        yield _gauge(
            "oldest_waiting_seconds",
            "Age of the file that has waited longest; 0 when none waits.",
            state.oldest_waiting_seconds,
        )
        success = () if state.last_success is None else state.last_success
        yield _gauge("last_success_timestamp_seconds", "When a file was last pushed or deleted successfully.", success)

    def _about_spool(self) -> Iterator[Metric]:
        state, capacity = self._state, self._volume.capacity
        yield _gauge(
            "stale_files",
            "Files being written (names ending in ~) that are older than --stale-after.",
            state.stale_count,
        )
        yield _gauge("failed_files", "Files in .failed/.", state.failed_count)
        yield _gauge(
            "odd_entries", "Directories, links and other entries of the spool that are never opened.", len(state.odd)
        )
        yield _gauge(
            "spool_free_bytes", "Free bytes of the spool's volume, or of the spool's limit.", capacity.free_bytes
        )
        yield _gauge("spool_size_bytes", "Size of the spool's volume, or the spool's limit.", capacity.size_bytes)
        yield _gauge("spool_free_inodes", "Free inodes of the spool's volume.", capacity.free_inodes)
        yield _gauge("spool_inodes", "Inodes of the spool's volume; 0 when it has no fixed number.", capacity.inodes)

    def _about_process(self) -> Iterator[Metric]:
        checks = self._checks
        yield _gauge("registry_up", "1 if the registry answers, else 0.", checks.registry.passing)
        states = {check.name: check.passing for check in (*checks.live, *checks.ready)}
        yield _gauge("check_passing", "The checks behind the probes: 1 if passing, else 0.", _by("check", states))
        yield _gauge("event_loop_lag_seconds", "How late the event loop's last beat was.", self._lag.lag_seconds)
        about = {"version": self._version, "python": platform.python_version()}
        yield _gauge("build_info", "Always 1; the labels say what runs.", [(about, 1)])


class _RemoteFamilies(Collector):
    """What is done for callers beyond the API server."""

    def __init__(self, remote: RemoteWork) -> None:
        self._remote = remote

    def collect(self) -> Iterator[Metric]:
        """Family by family."""
        remote = self._remote
        calls = [
            ({"command": command, "outcome": outcome}, remote.calls[command, outcome])
            for command in COMMANDS
            for outcome in OUTCOMES
        ]
        yield _counter("remote_calls", "Calls of kubectl spool that have ended, by command and outcome.", calls)
        transfers = {"running": len(remote.transfers) - remote.waiting, "waiting": remote.waiting}
        yield _gauge("remote_transfers", "Images on their way from or to kubectl spool.", _by("state", transfers))
        yield _counter("remote_received_bytes", "Bytes that came from kubectl spool.", remote.received_bytes)
        yield _counter("remote_sent_bytes", "Bytes that went to kubectl spool.", remote.sent_bytes)
        yield _counter("remote_images", "Images that kubectl spool has pushed.", remote.images)
        yield _counter(
            "remote_saved_bytes", "Bytes of rebuilt layers that did not have to be sent.", remote.saved_bytes
        )


def _job_counts(state: SpoolState) -> _Labelled:
    kinds = ((action, outcome) for action in _ACTIONS for outcome in _OUTCOMES)
    return [({"action": action, "outcome": outcome}, state.jobs[action, outcome]) for action, outcome in kinds]


def _retries(state: SpoolState) -> dict[str, int]:
    """By the known reasons; all others together, so that no engine's word can add a series."""
    counts = {reason: state.retries[reason] for reason in _REASONS}
    return {**counts, "other": state.retries.total() - sum(counts.values())}


def _by(label: str, values: Mapping[str, float]) -> _Labelled:
    return [({label: key}, value) for key, value in values.items()]


def _family(kind: Callable[..., Metric], name: str, about: str, values: float | _Labelled) -> Metric:
    family = kind(f"registry_spooler_{name}", about)
    suffix = "_total" if family.type == "counter" else ""
    for labels, value in [({}, values)] if isinstance(values, int | float) else values:
        family.add_sample(family.name + suffix, dict(labels), float(value))
    return family


_counter: Final = partial(_family, CounterMetricFamily)
_gauge: Final = partial(_family, GaugeMetricFamily)
