from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import pytest

from registry_spooler.cli.registry_client import wait
from registry_spooler.cli.registry_client.wait import FileNotInSpool, WaitOutcome, wait_for_outcome
from registry_spooler.errors import ArchiveError
from registry_spooler.progress import Progress
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.scheduling.job import Job
from support.spool.scripted import Handler, drop, failure, receipt, spooling


async def test_a_file_that_is_in_the_spool_is_waited_for(spool_directory: Path, handler: Handler) -> None:
    waiting = anyio.Event()
    outcomes: list[WaitOutcome] = []

    async def hold(job: Job, file: OpenedFile, progress: Progress) -> None:
        await waiting.wait()

    async def watch() -> None:
        outcomes.append(await wait_for_outcome(spool_directory, "app.tar"))

    handler.first("app.tar", hold)
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running, anyio.create_task_group() as tasks:
        await running.until(lambda: handler.running)
        tasks.start_soon(watch)
        await anyio.sleep(0.05)  # whether it waits already, or comes too late, the outcome is the same
        assert outcomes == []
        waiting.set()
        await running.until(lambda: outcomes)
    assert outcomes == [WaitOutcome(True, receipt(spool_directory, "app.tar"))]


async def test_what_is_done_is_known_at_once(spool_directory: Path, handler: Handler) -> None:
    handler.first("bad.tar", ArchiveError("no archive"))
    drop(spool_directory, "app.tar")
    drop(spool_directory, "bad.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar", "bad.tar")
    assert await wait_for_outcome(spool_directory, "app.tar") == WaitOutcome(True, receipt(spool_directory, "app.tar"))
    assert await wait_for_outcome(spool_directory, "bad.tar") == WaitOutcome(False, failure(spool_directory, "bad.tar"))


async def test_an_earlier_file_of_the_same_name_does_not_count(spool_directory: Path, handler: Handler) -> None:
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar")
        handler.first("app.tar", ArchiveError("no archive"))
        drop(spool_directory, "app.tar")
        outcome = await wait_for_outcome(spool_directory, "app.tar")
    assert outcome == WaitOutcome(False, failure(spool_directory, "app.tar"))


@pytest.mark.parametrize("name", ["never.tar", "being-written.tar~", ".hidden"])
async def test_what_was_never_there_is_not_waited_for(spool_directory: Path, name: str) -> None:
    with pytest.raises(FileNotInSpool):
        await wait_for_outcome(spool_directory, name)


@pytest.mark.parametrize("events", [True, False])
async def test_a_file_that_is_taken_away_by_hand_has_no_outcome(
    spool_directory: Path, events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not events:
        monkeypatch.setattr(wait, "open_watch", _no_watch)
        monkeypatch.setattr(wait, "POLL_SECONDS", 0.01)
    drop(spool_directory, "app[*].tar")
    seen, look = threading.Event(), wait._arrived_ns

    def note(directory: Path, name: str) -> int | None:
        try:
            return look(directory, name)
        finally:
            seen.set()

    monkeypatch.setattr(wait, "_arrived_ns", note)
    errors: list[FileNotInSpool] = []

    async def watch() -> None:
        try:
            await wait_for_outcome(spool_directory, "app[*].tar")
        except FileNotInSpool as exc:
            errors.append(exc)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            assert await anyio.to_thread.run_sync(seen.wait, 5)
            os.unlink(spool_directory / "app[*].tar")
    assert [str(error) for error in errors] == ["app[*].tar: it was taken out of the spool by hand"]


def _no_watch(directory: Path) -> None:
    raise OSError(28, "no more watches")


async def test_many_files_are_waited_for_while_they_are_done(spool_directory: Path, handler: Handler) -> None:
    """Whenever it asks, before the push, during it or while the file is set aside, the outcome is that of this file."""
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        for number in range(30):
            drop(spool_directory, "app.tar", str(number).encode())
            await anyio.sleep(number / 1000)
            with anyio.fail_after(10):
                outcome = await wait_for_outcome(spool_directory, "app.tar")
            assert (outcome.done, outcome.record["size_bytes"]) == (True, len(str(number)))
            assert handler.registry["app:latest"] == str(number).encode()
