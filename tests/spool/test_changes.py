"""Files that change while they are pushed: the newest complete content wins, and nothing is lost."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from registry_spooler.errors import ArchiveError
from registry_spooler.folder import Folder
from registry_spooler.progress import Progress
from registry_spooler.spool import removal
from registry_spooler.spool.directory.files import OpenedFile, identity_of
from registry_spooler.spool.scheduling.job import Job, Outcome, Reason
from support.spool.scripted import Handler, drop, receipt, spooling, visible


def rewrite(path: Path) -> None:
    path.write_bytes(b"new content")


def rewrite_with_the_old_times(path: Path) -> None:
    """As `cp -p` over a file of the same length does."""
    status = path.stat()
    path.write_bytes(b"new content")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" and more")


def replace(path: Path) -> None:
    (path.parent / "new~").write_bytes(b"new content")
    os.rename(path.parent / "new~", path)


@pytest.mark.parametrize(
    ("change", "content"),
    [
        (rewrite, b"new content"),
        (rewrite_with_the_old_times, b"new content"),
        (append, b"old content and more"),
        (replace, b"new content"),
    ],
)
async def test_a_file_that_changes_during_its_push_is_pushed_anew(
    spool_directory: Path, handler: Handler, change: Callable[[Path], None], content: bytes
) -> None:
    handler.first("app.tar", lambda job, file, progress: change(spool_directory / "app.tar"))
    drop(spool_directory, "app.tar", b"old content")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar")
        assert running.outcomes == [("app.tar", Outcome.DEFERRED), ("app.tar", Outcome.DONE)]
        assert running.ends[0].reason is Reason.SOURCE
    assert handler.pushes == [("app.tar", b"old content"), ("app.tar", content)]
    assert visible(spool_directory) == []


@pytest.mark.parametrize("change", [rewrite, append, replace])
async def test_a_file_that_changes_while_it_fails_is_tried_anew(
    spool_directory: Path, handler: Handler, change: Callable[[Path], None]
) -> None:
    def fail(job: Job, file: OpenedFile, progress: Progress) -> None:
        change(spool_directory / "app.tar")
        raise ArchiveError("half of this and half of that")

    handler.first("app.tar", fail)
    drop(spool_directory, "app.tar", b"old content")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar")
    assert len(handler.pushes) == 1
    assert os.listdir(spool_directory / ".failed") == []


async def test_a_file_that_is_renamed_during_its_push_is_pushed_under_its_new_name(
    spool_directory: Path, handler: Handler
) -> None:
    handler.first("app:1.tar", lambda *_: os.rename(spool_directory / "app:1.tar", spool_directory / "app:2.tar"))
    drop(spool_directory, "app:1.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app:2.tar")
        await running.until(lambda: running.state.queue_depth == 0)
    assert visible(spool_directory) == []


async def test_a_file_that_is_taken_away_during_its_push_is_forgotten(spool_directory: Path, handler: Handler) -> None:
    handler.first("app.tar", lambda *_: os.unlink(spool_directory / "app.tar"))
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: running.ends and running.state.queue_depth == 0)
        assert running.outcomes == [("app.tar", Outcome.DEFERRED)]
    assert os.listdir(spool_directory / ".receipts") == []


async def test_a_handler_can_ask_before_it_puts_the_tag(spool_directory: Path, handler: Handler) -> None:
    async def check(job: Job, file: OpenedFile, progress: Progress) -> None:
        file.check_unchanged()
        await anyio.to_thread.run_sync(replace, spool_directory / "app.tar")
        file.check_unchanged()

    handler.first("app.tar", check)
    drop(spool_directory, "app.tar", b"old content")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar")
        assert running.ends[0].error == "'app.tar' changed while it was being read"
    assert handler.pushes == [("app.tar", b"new content")]


async def test_a_file_that_somebody_has_open_for_writing_is_waited_for(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        with (spool_directory / "app.tar~").open("wb") as file:
            file.write(b"first, ")
            file.flush()
            os.rename(spool_directory / "app.tar~", spool_directory / "app.tar")
            await running.until(lambda: [entry.reason for entry in running.state.deferred()] == [Reason.WRITING])
            # It is as if it had not arrived: others of its repository need not wait.
            drop(spool_directory, "app:2.tar")
            await running.until_done("app:2.tar")
            assert handler.attempts == ["app:2.tar"]
            file.write(b"second")
        await running.until_done("app.tar")
    assert handler.pushes[-1] == ("app.tar", b"first, second")


async def test_a_writer_that_comes_during_the_push_is_waited_for(spool_directory: Path, handler: Handler) -> None:
    writers = []
    handler.first("app.tar", lambda *_: writers.append((spool_directory / "app.tar").open("ab")))
    drop(spool_directory, "app.tar", b"old")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: [entry.reason for entry in running.state.deferred()] == [Reason.WRITING])
        writers[0].write(b" and new")
        writers[0].close()
        await running.until_done("app.tar")
    assert handler.pushes == [("app.tar", b"old"), ("app.tar", b"old and new")]


async def test_what_was_pushed_is_not_pushed_again_when_only_its_end_had_to_wait(
    spool_directory: Path, handler: Handler
) -> None:
    writers = []
    handler.first("app.tar", lambda *_: writers.append((spool_directory / "app.tar").open("ab")))
    drop(spool_directory, "app.tar", b"old")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: [entry.reason for entry in running.state.deferred()] == [Reason.WRITING])
        writers[0].close()
        await running.until_done("app.tar")
    assert handler.pushes == [("app.tar", b"old")]
    assert receipt(spool_directory, "app.tar")["attempts"] == 1


@pytest.fixture(params=["leases", "no leases"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the leases of the kernel, and as where there are none."""
    if request.param == "leases":
        return True
    real = fcntl.fcntl

    def refuse(fd: int, command: int, *arguments: Any) -> Any:
        if command == fcntl.F_SETLEASE and arguments[0] != fcntl.F_UNLCK:
            raise PermissionError(13, "Permission denied")
        return real(fd, command, *arguments)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    return False


async def test_a_writer_is_found_in_any_case(spool_directory: Path, handler: Handler, leases: bool) -> None:
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        with (spool_directory / "app.tar").open("wb") as file:
            drop(spool_directory, "other.tar")
            await running.until_done("other.tar")
            os.rename(spool_directory / "app.tar", spool_directory / "app:1.tar")
            await running.until(lambda: [entry.reason for entry in running.state.deferred()] == [Reason.WRITING])
            file.write(b"content")
        await running.until_done("app:1.tar")
    assert handler.pushes[-1] == ("app:1.tar", b"content")


async def test_a_name_given_to_another_file_at_the_last_moment(
    spool_directory: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch, leases: bool
) -> None:
    """Between the last look and the renaming aside the file is replaced: the other one must not be taken for it."""
    real = os.rename
    done: list[bool] = []

    def replace_first(source: Any, target: Any, **folders: Any) -> None:
        if source == "app.tar" and not done:
            done.append(True)
            (spool_directory / "new~").write_bytes(b"new content")
            real(spool_directory / "new~", spool_directory / source)
        real(source, target, **folders)

    monkeypatch.setattr(os, "rename", replace_first)
    drop(spool_directory, "app.tar", b"old content")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar")
    assert handler.pushes == [("app.tar", b"old content"), ("app.tar", b"new content")]
    assert visible(spool_directory) == []


async def test_a_name_that_is_taken_again_while_its_file_is_aside(
    spool_directory: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaced at the last moment, and the name given once more before the file is back: three contents, in order."""
    real, real_look = os.rename, identity_of
    done: list[bool] = []

    def replace_first(source: Any, target: Any, **folders: Any) -> None:
        if source == "app.tar" and not done:
            done.append(True)
            (spool_directory / "new~").write_bytes(b"second")
            real(spool_directory / "new~", spool_directory / source)
        real(source, target, **folders)

    def take_the_name(folder: Folder, name: str) -> Any:
        if len(done) == 1:
            done.append(True)
            (spool_directory / "new~").write_bytes(b"third")
            real(spool_directory / "new~", spool_directory / "app.tar")
        return real_look(folder, name)

    monkeypatch.setattr(os, "rename", replace_first)
    monkeypatch.setattr(removal, "identity_of", take_the_name)
    drop(spool_directory, "app.tar", b"first")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: len(handler.pushes) == 3 and running.state.queue_depth == 0)
    assert handler.pushes == [("app.tar", b"first"), ("app.tar", b"second"), ("app.tar", b"third")]
    assert visible(spool_directory) == []
    assert list((spool_directory / ".work").glob("*/*/*")) == []


async def test_a_writer_that_opens_the_file_at_the_last_moment(
    spool_directory: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its open waits for the lease; it must get the file under its name, not one that is about to be removed."""
    real = os.rename
    writers: list[threading.Thread] = []

    def append() -> None:
        with (spool_directory / "app.tar").open("ab") as file:
            file.write(b" and new")

    def open_first(source: Any, target: Any, **folders: Any) -> None:
        if source == "app.tar" and not writers:
            writers.append(threading.Thread(target=append))
            writers[0].start()
            time.sleep(0.05)
        real(source, target, **folders)

    monkeypatch.setattr(os, "rename", open_first)
    drop(spool_directory, "app.tar", b"old")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: handler.registry.get("app:latest") == b"old and new")
        await running.until(lambda: running.state.queue_depth == 0)
    writers[0].join()
    assert visible(spool_directory) == []


CHANGER = """
import os, random, sys, time
directory, how, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
path = os.path.join(directory, "app.tar")
for number in range(rounds):
    line = b"%06d\\n" % number
    if how == "append":
        with open(path, "ab") as file:
            file.write(line)
    elif how == "rewrite":
        with open(path, "wb") as file:
            file.write(line * 3)
    else:
        with open(path + "~", "wb") as file:
            file.write(line)
        os.rename(path + "~", path)
    time.sleep(random.choice((0, 0.0005, 0.003, 0.02, random.uniform(0.02, 0.1))))
"""
ROUNDS = 250


@contextmanager
def changing(directory: Path, how: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", CHANGER, str(directory), how, str(ROUNDS)]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["append", "rewrite", "replace"])
async def test_a_file_that_changes_all_the_time_at_random_instants(place: Path, handler: Handler, how: str) -> None:
    async def push(job: Job, file: OpenedFile, progress: Progress) -> tuple[Any, ...]:
        handler.first(job.name, lambda *_: time.sleep(random.uniform(0, 0.004)))
        return await handler(job, file, progress)

    async with spooling(place, push, settle_seconds=0.01) as running:
        await running.until_ready()
        with changing(place, how) as process:
            await running.until(lambda: process.poll() is not None, seconds=60)
        assert process.returncode == 0
        await running.until(lambda: not visible(place) and running.state.queue_depth == 0)
    last = b"%06d\n" % (ROUNDS - 1)
    name, content = handler.pushes[-1]
    assert name == "app.tar"
    if how == "append":
        assert content.endswith(last)
        seen = {line for _, content in handler.pushes for line in content.splitlines()}
        assert seen == {b"%06d" % number for number in range(ROUNDS)}
    else:
        assert content == (last * 3 if how == "rewrite" else last)
    assert os.listdir(place / ".failed") == []
    assert list((place / ".work").glob("*/*/*")) == []
