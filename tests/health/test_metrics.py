from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from registry_spooler.health.metrics import is_scraper
from registry_spooler.health.remote import RemoteTransfer
from registry_spooler.spool.filename import Action
from registry_spooler.spool.scheduling.job import Outcome
from registry_spooler.spool.state import OddEntryShown
from support.health.health_port import HealthPort
from support.health.scripted_state import ScriptedState, busy_state, running, waiting

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
TEXT = "text/plain;version=0.0.4"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


FORMATS = ((read_text, TEXT), (read_openmetrics, PROMETHEUS_2))


def _names(read: Callable[[str], Iterable[Metric]], text: str) -> Iterator[str]:
    return (sample.name for family in read(text) for sample in family.samples)


@pytest.fixture
def state() -> ScriptedState:
    return busy_state()


def samples(text: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


async def test_promtool_finds_nothing_to_say(port: HealthPort, state: ScriptedState) -> None:
    state.end(seconds=0.2)
    _, _, text = await port.get("/metrics", accept=TEXT)
    found = subprocess.run(  # noqa: ASYNC221 - some 50 ms, and nothing else runs
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=30, check=False
    )
    assert (0, "", "") == (found.returncode, found.stdout, found.stderr)


async def test_both_formats_hold_the_same_samples(port: HealthPort, state: ScriptedState) -> None:
    state.end(seconds=0.2)
    names = [set(_names(read, (await port.get("/metrics", accept=accept))[2])) for read, accept in FORMATS]
    assert names[0] == names[1]


async def test_openmetrics_is_what_its_own_parser_reads(port: HealthPort) -> None:
    _, content_type, text = await port.get("/metrics", accept=PROMETHEUS_2)

    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert text.endswith("\n# EOF\n")
    families = {family.name: family for family in read_openmetrics(text)}
    assert ("counter", 1287.0) == (
        families["registry_spooler_jobs"].type,
        families["registry_spooler_jobs"].samples[0].value,
    )
    assert "histogram" == families["registry_spooler_job_seconds"].type


async def test_the_older_text_for_whoever_asks_for_nothing_else(port: HealthPort) -> None:
    for accept in (TEXT, "*/*", BROWSER, "", "application/openmetrics-text;version=abc"):
        _, content_type, text = await port.get("/metrics", accept=accept)
        assert "text/plain; version=0.0.4; charset=utf-8" == content_type
        assert "counter" == next(f.type for f in read_text(text) if f.name == "registry_spooler_jobs")


async def test_a_scraper_gets_the_metrics_at_status_too(port: HealthPort) -> None:
    assert (await port.get("/status", accept=PROMETHEUS_2))[1].startswith("application/openmetrics-text")
    assert (await port.get("/status", accept=TEXT))[1].startswith("text/plain")
    assert (await port.get("/status", accept=BROWSER))[1] == "application/json"
    assert (await port.get("/status"))[1] == "application/json"


async def test_what_the_issue_lists_is_there(port: HealthPort, state: ScriptedState) -> None:
    state.last_success = 1_795_000_000.0
    _, _, text = await port.get("/metrics", accept=TEXT)

    found = samples(text)

    expected = {
        "registry_spooler_jobs_total action=push outcome=done": 1287,
        "registry_spooler_jobs_total action=push outcome=deferred": 5,
        "registry_spooler_jobs_total action=delete outcome=failed": 0,
        "registry_spooler_read_bytes_total": 9e9,
        "registry_spooler_sent_bytes_total": 2e9,
        "registry_spooler_skipped_bytes_total": 0,
        "registry_spooler_blobs_total how=uploaded": 310,
        "registry_spooler_blobs_total how=existing": 1940,
        "registry_spooler_blobs_total how=mounted": 0,
        "registry_spooler_retries_total reason=status": 4,
        "registry_spooler_retries_total reason=unreachable": 1,
        "registry_spooler_queue_files state=running": 3,
        "registry_spooler_queue_files state=waiting": 3,
        "registry_spooler_queue_files state=deferred": 1,
        "registry_spooler_oldest_waiting_seconds": 64,
        "registry_spooler_stale_files": 1,
        "registry_spooler_failed_files": 1,
        "registry_spooler_registry_up": 1,
        "registry_spooler_last_success_timestamp_seconds": 1_795_000_000,
    }
    assert expected == {name: found.get(name) for name in expected}
    assert found["registry_spooler_spool_free_bytes"] > 0
    assert found["registry_spooler_spool_free_inodes"] > 0
    assert any(name.startswith("registry_spooler_build_info ") and " version=1.2.3" in name for name in found)


async def test_histograms_reach_from_ten_milliseconds_to_an_hour_and_from_a_kilobyte_to_100_gigabytes(
    port: HealthPort, state: ScriptedState
) -> None:
    state.end(seconds=0.01, archive_bytes=1_000)
    state.end(seconds=3_600, archive_bytes=100_000_000_000)
    state.end(Outcome.FAILED, seconds=4_000, archive_bytes=5)
    state.end(action=Action.DELETE, seconds=0.02, archive_bytes=0)

    found = samples((await port.get("/metrics", accept=TEXT))[2])

    seconds = "registry_spooler_job_seconds_bucket action=push le={} outcome=done"
    assert [1, 1, 2] == [found[seconds.format(edge)] for edge in ("0.01", "1800.0", "3600.0")]
    sizes = "registry_spooler_archive_bytes_bucket le={}"
    assert [1, 1, 2] == [found[sizes.format(edge)] for edge in ("1000.0", "3e+10", "1e+11")]
    assert 100_000_001_000 == found["registry_spooler_archive_bytes_sum"]


async def test_names_make_no_series(port: HealthPort, state: ScriptedState) -> None:
    before = samples((await port.get("/metrics", accept=TEXT))[2])

    hostile = 'x"} 1\nregistry_spooler_registry_up 0\n# HELP \\{'
    state.waiting_files += [waiting(f"{hostile}{n}", f"team/app-{n}") for n in range(200)]
    state.running_jobs += [running(hostile, None)]
    state.odd = tuple(OddEntryShown(f"{hostile}{n}", "FIFO") for n in range(200))
    state.retries[hostile] += 7
    state.end(name=hostile)
    after = samples((await port.get("/metrics", accept=TEXT))[2])

    assert set(before) == set(after)
    assert 7.0 == after["registry_spooler_retries_total reason=other"]
    assert 1.0 == after["registry_spooler_registry_up"]


@pytest.mark.parametrize(
    ("accept", "scraper"),
    [
        (PROMETHEUS_2, True),
        ("application/vnd.google.protobuf;proto=x;q=0.7,text/plain;version=0.0.4;q=0.3", True),
        (TEXT, True),
        (BROWSER, False),
        ("*/*", False),
        ("", False),
        (",;=;,,;q=,", False),
    ],
)
def test_only_a_scraper_gets_metrics_at_status(accept: str, scraper: bool) -> None:
    assert scraper == is_scraper(accept)


async def test_requests_that_were_sent_again_are_counted_as_they_happen(port: HealthPort) -> None:
    port.registry.retries.update(unreachable=3, status=2)
    found = samples((await port.get("/metrics", accept=TEXT))[2])
    assert 3.0 == found["registry_spooler_request_retries_total reason=unreachable"]
    port.registry.retries.update(status=5)
    found = samples((await port.get("/metrics", accept=TEXT))[2])
    assert 7.0 == found["registry_spooler_request_retries_total reason=status"]


async def test_calls_from_outside_are_counted(port: HealthPort) -> None:
    port.remote.transfers = [RemoteTransfer(command="receive"), RemoteTransfer(command="pull", ahead=2)]
    port.remote.count("receive", "cancelled", received_bytes=100, sent_bytes=7)
    port.remote.images, port.remote.saved_bytes = 3, 5_000
    found = samples((await port.get("/metrics", accept=TEXT))[2])
    assert 1.0 == found["registry_spooler_remote_calls_total command=receive outcome=cancelled"]
    assert 1.0 == found["registry_spooler_remote_transfers state=waiting"]
    assert 3.0 == found["registry_spooler_remote_images_total"]
    assert 5_000.0 == found["registry_spooler_remote_saved_bytes_total"]
    assert (100.0, 7.0) == (
        found["registry_spooler_remote_received_bytes_total"],
        found["registry_spooler_remote_sent_bytes_total"],
    )
