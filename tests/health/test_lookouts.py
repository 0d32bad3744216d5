"""The health side rests when nobody looks and nothing runs, and knows at once what is the case when somebody does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from health_port import HealthPort, until
from scripted_board import ScriptedBoard, running

from registry_spooler.errors import RegistryUnreachable
from registry_spooler.health import probes as pulse
from registry_spooler.health.probes import PeriodicCheck
from registry_spooler.spool.scheduling.job import Outcome


class Looks:
    """Counts looks."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1


@asynccontextmanager
async def kept(lookout: PeriodicCheck) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lookout.keep)
        yield
        tasks.cancel_scope.cancel()


async def test_it_looks_while_it_is_wanted_and_then_rests_until_it_is_wanted_again() -> None:
    looks = Looks()
    lookout = PeriodicCheck(looks, lambda: 0.01)
    async with kept(lookout):
        await anyio.sleep(0.05)
        assert 0 == looks.count

        lookout.want(0.1)
        await lookout.first_look.wait()
        await until(lambda: looks.count >= 3)
        await until(lambda: not lookout.first_look.is_set())
        count = looks.count
        await anyio.sleep(0.05)
        assert count == looks.count

        lookout.want(0.1)
        await lookout.first_look.wait()
        assert looks.count > count


async def test_a_look_that_nobody_foresaw_to_fail_is_logged_once_and_ends_nothing(
    port: HealthPort, caplog: pytest.LogCaptureFixture
) -> None:
    port.registry.error = UnicodeError("label empty or too long")
    for _ in range(2):
        status, document = await port.json("/ready")
        assert 503 == status
        assert "internal error (UnicodeError)" in document["checks"]["registry"]["detail"]
    asked = port.registry.asked
    await until(lambda: port.registry.asked > asked)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "health check" in record.message
    port.registry.error = None
    asked = port.registry.asked
    await until(lambda: port.registry.asked > asked)
    assert 200 == (await port.json("/ready"))[0]


async def test_nothing_is_asked_until_somebody_asks_and_then_before_he_is_answered(port: HealthPort) -> None:
    assert 200 == (await port.json("/live"))[0]
    assert 0 == port.registry.asked

    assert 200 == (await port.json("/ready"))[0]
    assert 1 == port.registry.asked

    await port.json("/status")
    await port.get("/metrics")
    assert 1 == port.registry.asked  # it was asked a moment ago


async def test_a_registry_that_says_nothing_keeps_no_probe_waiting(port: HealthPort) -> None:
    port.registry.hangs = True
    began = time.monotonic()

    status, document = await port.json("/ready")

    assert time.monotonic() - began < 1.0
    assert (503, "the registry has not answered within 0.7 seconds") == (
        status,
        document["checks"]["registry"]["detail"],
    )
    assert 200 == (await port.json("/live"))[0]


async def test_a_job_that_meets_trouble_has_the_registry_looked_at(port: HealthPort, board: ScriptedBoard) -> None:
    port.registry.error = RegistryUnreachable("http://localhost:5000", "connection refused")

    board.end(Outcome.DEFERRED)

    await until(lambda: port.health.checks.registry.detail != "not looked at yet")
    known_at = time.time()
    _, document = await port.json("/status")
    assert "connection refused" in document["registry"]["detail"]
    assert port.health.checks.registry.since <= known_at


async def test_a_loop_that_stands_still_during_a_job_shows(
    port: HealthPort, board: ScriptedBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(pulse, "STALL_SECONDS", 0.2)
    assert board.on_job_start is not None
    board.running_jobs = [running("app.tar", "app")]
    board.on_job_start()
    await anyio.sleep(0.12)  # some beats

    time.sleep(0.4)  # noqa: ASYNC251 - what must not happen
    await anyio.sleep(0.1)
    board.running_jobs = []

    status, document = await port.json("/live")
    assert (503, "failing") == (status, document["checks"]["event_loop"]["state"])
    assert document["checks"]["event_loop"]["detail"].startswith("the event loop stood still for 0.")


async def test_a_rest_is_no_stall(port: HealthPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(pulse, "STALL_SECONDS", 0.05)
    await anyio.sleep(0.2)

    assert 200 == (await port.json("/live"))[0]
