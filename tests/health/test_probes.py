from __future__ import annotations

import time

import pytest

from registry_spooler.errors import RegistryUnreachable
from registry_spooler.health.probes import HELD_SECONDS, Check, LoopLag
from registry_spooler.spool.directory.workdir import Capacity
from registry_spooler.spool.state import Condition
from support.health.health_port import HealthPort, until
from support.health.scripted_state import ScriptedState

LIVE = {"event_loop", "watch"}
READY = LIVE | {"first_scan", "registry", "spool_writable", "spool_space"}


async def test_all_is_well(port: HealthPort) -> None:
    for path, names in (("/live", LIVE), ("/healthz", LIVE), ("/ready", READY)):
        status, document = await port.json(path)
        assert (200, "ok", names) == (status, document["status"], set(document["checks"]))
        for check in document["checks"].values():
            assert ("ok", {"state", "since", "detail"}) == (check["state"], set(check))
            assert check["since"].endswith("Z")


async def failing(port: HealthPort) -> tuple[dict[str, int], dict[str, str]]:
    """The answer of each probe, and what fails with its detail."""
    statuses = {path: (await port.json(path))[0] for path in ("/live", "/healthz", "/ready")}
    _, document = await port.json("/ready")
    return statuses, {
        name: f"{check['state']}: {check['detail']}" if check["state"] != "failing" else check["detail"]
        for name, check in document["checks"].items()
        if check["state"] != "ok"
    }


async def test_a_dead_watch_restarts(port: HealthPort, state: ScriptedState) -> None:
    state.watching.set(False, "the spool directory was removed")

    assert (
        {"/live": 503, "/healthz": 503, "/ready": 503},
        {"watch": "the spool directory was removed"},
    ) == await failing(port)


async def test_a_registry_that_is_down_makes_unready_and_never_not_live(port: HealthPort) -> None:
    port.registry.error = RegistryUnreachable("http://localhost:5000", "connection refused")
    await port.ask_registry()

    detail = "the registry http://localhost:5000 cannot be reached: connection refused"
    assert ({"/live": 200, "/healthz": 200, "/ready": 503}, {"registry": detail}) == await failing(port)

    port.registry.error = None
    await port.ask_registry()
    assert ({"/live": 200, "/healthz": 200, "/ready": 200}, {}) == await failing(port)


async def test_a_registry_that_hangs_is_down(port: HealthPort) -> None:
    assert 200 == (await port.json("/ready"))[0]
    port.registry.hangs = True

    await port.ask_registry(timeout_seconds=0.05)

    assert {"registry": "the registry has not answered within 0.05 seconds"} == (await failing(port))[1]


async def test_a_spool_that_cannot_be_written_to_makes_unready(port: HealthPort, state: ScriptedState) -> None:
    assert 200 == (await port.json("/ready"))[0]
    state.writable.set(False, "the spool cannot be written to: No space left on device")
    port.health.checks._volume.capacity = Capacity(free_bytes=0, size_bytes=1 << 30, free_inodes=5, inodes=100)

    assert (
        {"/live": 200, "/healthz": 200, "/ready": 503},
        {
            "spool_writable": "the spool cannot be written to: No space left on device",
            "spool_space": "warning: the volume has only 0 B left",
        },
    ) == await failing(port)


async def test_little_room_is_told_and_leaves_the_pod_ready(port: HealthPort) -> None:
    """Unready, it would take the registry in the same pod out of its Service, though files are still worked through."""
    assert 200 == (await port.json("/ready"))[0]
    port.health.checks._volume.capacity = Capacity(free_bytes=409_600, size_bytes=409_600)

    assert (
        {"/live": 200, "/healthz": 200, "/ready": 200},
        {"spool_space": "warning: the volume has only 400.0 KiB left"},
    ) == await failing(port)
    assert "ok" == (await port.json("/ready"))[1]["status"]
    status = (await port.json("/status"))[1]
    assert (True, "warning") == (status["ready"], status["checks"]["spool_space"]["state"])
    assert 'registry_spooler_check_passing{check="spool_space"} 0.0' in (await port.get("/metrics"))[2]


@pytest.mark.parametrize(
    ("capacity", "shortage"),
    [
        (Capacity(), ""),
        (Capacity(free_bytes=1 << 30, size_bytes=1 << 40, free_inodes=0, inodes=0), ""),
        (Capacity(free_bytes=1 << 30, size_bytes=1 << 40, free_inodes=1, inodes=9), ""),
        (
            Capacity(free_bytes=1 << 30, size_bytes=1 << 40, free_inodes=0, inodes=9),
            "the volume has none of its 9 inodes free",
        ),
    ],
)
def test_inodes_run_out_too(capacity: Capacity, shortage: str) -> None:
    assert shortage == capacity.shortage


async def test_a_first_scan_that_is_not_done_makes_unready(port: HealthPort, state: ScriptedState) -> None:
    state.scanned.set(False)

    assert ({"/live": 200, "/healthz": 200, "/ready": 503}, {"first_scan": "the first scan is not done"}) == (
        await failing(port)
    )


async def test_a_stalled_event_loop_shows_for_a_while(port: HealthPort) -> None:
    port.health.checks._lag._due = time.monotonic() - 7.0  # as if the loop came round only now

    statuses, checks = await failing(port)

    assert {"/live": 503, "/healthz": 503, "/ready": 503} == statuses
    assert ["event_loop"] == list(checks)
    assert checks["event_loop"].startswith("the event loop stood still for 7.")


def test_a_stall_is_forgotten_after_a_while() -> None:
    now = [100.0]
    lag = LoopLag(clock=lambda: now[0])
    lag._due = now[0]
    assert "" == lag.trouble

    now[0] += 6.0
    assert "the event loop stood still for 6.0 seconds" == lag.trouble

    lag._due = now[0] + 1.0  # it beats again
    now[0] += HELD_SECONDS - 0.5
    lag._due = now[0] + 1.0
    assert "the event loop stood still for 6.0 seconds" == lag.trouble

    now[0] += 1.0
    lag._due = now[0] + 1.0
    assert "" == lag.trouble


async def test_a_change_between_two_questions_is_noticed_when_it_happens(port: HealthPort) -> None:
    assert 200 == (await port.json("/ready"))[0]
    port.health.checks._volume.capacity = Capacity(free_bytes=0, size_bytes=1 << 30)

    await until(lambda: not port.health.checks.space.passing)

    assert "the volume has only 0 B left" == port.health.checks.space.detail


def test_since_when_is_the_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    condition = Condition()
    check = Check("registry", condition, "the registry answers", "the registry has not been asked yet", started=1_000.0)
    since = "1970-01-01T00:16:40.000Z"
    assert {"state": "failing", "since": since, "detail": "the registry has not been asked yet"} == check.to_json()

    now[0] = 1_060.0
    condition.set(True)
    now[0] = 1_120.0
    condition.set(True)
    assert {"state": "ok", "since": "1970-01-01T00:17:40.000Z", "detail": "the registry answers"} == check.to_json()

    condition.set(False, "it is gone")
    assert {"state": "failing", "since": "1970-01-01T00:18:40.000Z", "detail": "it is gone"} == check.to_json()
