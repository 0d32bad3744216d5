from __future__ import annotations

import re
import time
from pathlib import Path

import anyio
import pytest

from registry_spooler.backoff import Backoff
from registry_spooler.errors import (
    AccessDenied,
    RegistryAnswer,
    RegistryProtocolError,
    RegistryUnreachable,
    SettingUnusable,
    SpoolerError,
)
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.scheduling.job import Job, Reason
from support.spool.scripted import Handler, drop, image, spooling

UNREACHABLE = RegistryUnreachable("localhost:5000", "connection refused")
PAGE = RegistryProtocolError("localhost:5000", "it answers with a web page")
REFUSED = AccessDenied("GET", "http://localhost:5000/v2/", 401)


@pytest.mark.parametrize(("failures", "bound"), [(1, 1), (2, 2), (3, 4), (6, 30), (1000, 30), (10**9, 30)])
def test_the_waiting_grows_up_to_its_cap_with_full_jitter(failures: int, bound: float) -> None:
    delays = [Backoff().delay_seconds(failures) for _ in range(300)]
    assert 0 <= min(delays) < bound * 0.2
    assert bound * 0.8 < max(delays) <= bound


def test_what_the_registry_asks_for_is_honoured_within_reason() -> None:
    assert 45 <= Backoff().delay_seconds(1, retry_after_seconds=45) <= 45
    assert Backoff().delay_seconds(1, retry_after_seconds=1e9) == 300


class Registry:
    """A registry that is down, until it is not."""

    def __init__(self, error: SpoolerError = UNREACHABLE) -> None:
        self.is_down = True
        self.error = error
        self.attempts: list[tuple[str, float]] = []

    async def __call__(self, job: Job, file: OpenedFile, progress: Progress) -> tuple[ImageResult, ...]:
        self.attempts.append((job.name, time.monotonic()))
        await anyio.lowlevel.checkpoint()
        if self.is_down:
            raise self.error
        assert job.reference is not None
        return (image(job.reference, b""),)


@pytest.mark.parametrize("error", [PAGE, REFUSED, UNREACHABLE])
async def test_while_a_ping_fails_the_files_wait_together_and_then_go_in_the_order_of_arrival(
    spool_directory: Path, error: SpoolerError
) -> None:
    registry = Registry(error)
    pings = []

    async def ping() -> None:
        pings.append(len(registry.attempts))
        if registry.is_down:
            raise error

    names = [f"app{number % 5}:{number}.tar" for number in range(40)]
    for name in names:
        drop(spool_directory, name)
    async with spooling(spool_directory, registry, jobs_at_once=1, ping=ping) as running:
        await running.until(lambda: len(pings) >= 5)
        assert [name for name, _ in registry.attempts] == names[:1]
        assert running.state.failed_count == 0
        registry.is_down = False
        await running.until_done(*names)
        assert running.state.held_for is None
    assert [name for name, _ in registry.attempts] == [names[0], *names]


async def test_a_ping_that_nobody_foresaw_to_fail_is_logged_once_and_ends_nothing(
    spool_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    pings = []

    async def ping() -> None:
        pings.append(len(registry.attempts))
        if registry.is_down:
            raise UnicodeError("label empty or too long")

    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, registry, ping=ping) as running:
        await running.until(lambda: len(pings) >= 3)
        registry.is_down = False
        await running.until_done("app.tar")
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_setting_that_cannot_be_read_is_everybodys_trouble_until_one_gets_through(
    spool_directory: Path,
) -> None:
    registry = Registry(SettingUnusable("/ca.pem", "No such file or directory"))
    names = [f"app{number}.tar" for number in range(8)]
    for name in names:
        drop(spool_directory, name)
    async with spooling(spool_directory, registry, jobs_at_once=1) as running:
        await running.until(lambda: len(registry.attempts) >= 3)
        assert running.state.held_for is Reason.SETTING
        assert {file.reason for file in running.state.deferred()} == {Reason.SETTING}
        registry.is_down = False
        await running.until_done(*names)
        assert running.state.held_for is None


async def test_a_file_that_arrives_while_the_registry_is_down_waits_with_the_others(spool_directory: Path) -> None:
    registry = Registry()
    pings = []

    async def ping() -> None:
        pings.append(len(registry.attempts))
        if registry.is_down:
            raise registry.error

    drop(spool_directory, "a.tar")
    async with spooling(spool_directory, registry, ping=ping) as running:
        await running.until(lambda: len(pings) >= 2)
        drop(spool_directory, "b.tar")
        await running.until(lambda: running.state.waiting_count == 1)
        (spool_directory / "a.tar").touch()
        await running.until(lambda: len(pings) >= 5)
        assert [name for name, _ in registry.attempts] == ["a.tar"]
        assert running.state.held_for is Reason.UNREACHABLE
        registry.is_down = False
        await running.until_done("a.tar", "b.tar")


async def test_a_file_that_meets_trouble_by_itself_does_not_keep_the_others(
    spool_directory: Path, handler: Handler
) -> None:
    """The registry refuses the login for one repository, and answers its ping."""
    handler.always("a.tar", REFUSED)
    for name in ("a.tar", "b.tar", "c.tar"):
        drop(spool_directory, name)

    async def ping() -> None:
        pass

    async with spooling(spool_directory, handler, jobs_at_once=1, ping=ping) as running:
        await running.until_done("b.tar", "c.tar")
        assert {"b:latest", "c:latest"} == set(handler.registry)
        handler.heal("a.tar")
        await running.until_done("a.tar")
        assert {"a:latest", "b:latest", "c:latest"} == set(handler.registry)


async def test_what_the_registry_asks_one_job_for_the_others_heed_too(spool_directory: Path, handler: Handler) -> None:
    busy = RegistryAnswer("PUT", "http://localhost:5000/v2/a", 429, retry_after_seconds=0.5)
    handler.first("a.tar", busy)
    async with spooling(spool_directory, handler, jobs_at_once=1) as running:
        drop(spool_directory, "a.tar")
        await running.until(lambda: running.state.deferred())
        asked = time.monotonic()
        drop(spool_directory, "b.tar")
        await running.until_done("a.tar", "b.tar")
        assert time.monotonic() - asked > 0.4
    assert running.state.retries == {"status": 1}


async def test_a_file_that_blocks_its_repository_is_told_of_again_and_again(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_spooler.spool.log.REMIND_AFTER", 3)
    caplog.set_level("WARNING")
    handler.always("a:1.tar", RegistryAnswer("PUT", "http://localhost:5000/v2/a", 500))
    drop(spool_directory, "a:1.tar")
    async with spooling(spool_directory, handler) as running:
        drop(spool_directory, "a:2.tar")
        drop(spool_directory, "b:2.tar")
        await running.until(lambda: [file.behind for file in running.state.waiting()] == ["a:1.tar"])
        await running.until(lambda: len(handler.attempts) > 6)
    first, second, *_ = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert re.fullmatch(r"deferred a:1\.tar → a:1: .* 500 .*; next try (now|in \d+\.\d s)", first)
    assert re.search(r"; it has been here since 20[-\d]+T[:.\d]+Z, and later files of a wait for it$", second)


async def test_what_came_after_a_bundle_that_nobody_could_read_waits_for_it(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    handler.always("@all.tar", RegistryAnswer("GET", "http://localhost:5000/v2/", 500))
    drop(spool_directory, "@all.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: handler.attempts)
        drop(spool_directory, "c.tar")
        await running.until(lambda: [file.behind for file in running.state.waiting()] == ["@all.tar"])
        await running.until(lambda: len(handler.attempts) > 3)
    assert any(message.endswith("Z, and all that came after it waits for it") for message in caplog.messages)


async def test_one_answer_of_500_keeps_only_its_own_repository_waiting(spool_directory: Path, handler: Handler) -> None:
    handler.always("a:1.tar", RegistryAnswer("PUT", "http://localhost:5000/v2/a", 500))
    for name in ("a:1.tar", "a:2.tar", "b.tar", "c.tar"):
        drop(spool_directory, name)
    async with spooling(spool_directory, handler) as running:
        await running.until_done("b.tar", "c.tar")
        assert "a:2.tar" not in handler.attempts
        handler.heal("a:1.tar")
        await running.until_done("a:1.tar", "a:2.tar")
