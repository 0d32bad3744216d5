"""The checks that ask somebody: at intervals, whoever wants to know."""

from __future__ import annotations

import time

import anyio
import pytest

from registry_spooler.health import probes
from registry_spooler.health.probes import RegistryPing, check_periodically
from registry_spooler.spool.state import Condition
from support.health.health_port import HealthPort, until


class Looks:
    """Counts looks, and fails while it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


async def test_it_looks_again_and_again() -> None:
    looks = Looks()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(check_periodically, looks, lambda: 0.01)
        await until(lambda: looks.count >= 3)
        tasks.cancel_scope.cancel()


async def test_an_unexpected_error_is_logged_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks()
    looks.error = UnicodeError("label empty or too long")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(check_periodically, looks, lambda: 0.01)
        await until(lambda: looks.count >= 3)
        (record,) = [record for record in caplog.records if record.exc_info]
        assert "a health check met an internal error" == record.message

        looks.error = None
        count = looks.count
        await until(lambda: looks.count > count)
        tasks.cancel_scope.cancel()


async def test_an_unexpected_error_makes_the_registry_fail(port: HealthPort) -> None:
    port.registry.error = UnicodeError("label empty or too long")
    with pytest.raises(UnicodeError):
        await port.ask_registry()

    status, document = await port.json("/ready")
    assert 503 == status
    assert "internal error (UnicodeError)" in document["checks"]["registry"]["detail"]

    port.registry.error = None
    await port.ask_registry()
    assert 200 == (await port.json("/ready"))[0]


async def test_questions_are_answered_from_memory(port: HealthPort) -> None:
    asked = port.registry.asked
    for path in ("/ready", "/status", "/metrics", "/live"):
        assert 200 == (await port.get(path))[0]
    assert asked == port.registry.asked


async def test_a_registry_that_is_down_is_asked_again_sooner() -> None:
    async def answers() -> None:
        pass

    ping = RegistryPing(answers, Condition())
    assert probes.DOWN_INTERVAL_SECONDS == ping.interval_seconds
    await ping.ask()
    assert probes.UP_INTERVAL_SECONDS == ping.interval_seconds


async def test_a_loop_that_stands_still_shows(port: HealthPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "STALL_SECONDS", 0.2)

    time.sleep(probes.BEAT_SECONDS + 0.4)  # noqa: ASYNC251 - what must not happen

    status, document = await port.json("/live")
    assert (503, "failing") == (status, document["checks"]["event_loop"]["state"])
    assert document["checks"]["event_loop"]["detail"].startswith("the event loop stood still for 0.")
