"""The directory itself: missing, removed, replaced, unmounted, full, read-only; events that are lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from registry_spooler.aio import in_thread
from registry_spooler.errors import ArchiveError
from registry_spooler.spool.directory.workdir import open_workdir
from registry_spooler.spool.scheduling.job import Outcome, Reason
from support.spool.scripted import Handler, debris, drop, failure, receipt, spooling, visible


async def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path: Path, handler: Handler) -> None:
    directory = tmp_path / "later"
    async with spooling(directory, handler) as running:
        await running.until(lambda: running.state.watching.error)
        assert not running.state.watching.holds
        assert "No such file or directory" in running.state.watching.error
        directory.mkdir()
        drop(directory, "app.tar")
        await running.until_done("app.tar")
        assert running.state.watching.holds


async def test_what_is_no_directory_is_said_to_be_none(tmp_path: Path, handler: Handler) -> None:
    (tmp_path / "file").touch()
    async with spooling(tmp_path / "file", handler) as running:
        await running.until(lambda: "Not a directory" in running.state.watching.error)
        assert not running.state.watching.holds


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
async def test_a_directory_that_goes_away_is_watched_anew_when_it_comes_back(
    spool_directory: Path, handler: Handler, how: str
) -> None:
    drop(spool_directory, "before.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("before.tar")
        if how == "removed":
            shutil.rmtree(spool_directory)
        else:
            drop(spool_directory, "x~")
            os.rename(spool_directory, spool_directory.parent / "elsewhere")
        if how != "replaced":
            await running.until(lambda: not running.state.watching.holds)
        spool_directory.mkdir()
        drop(spool_directory, "after.tar")
        await running.until_done("after.tar")
        assert running.state.watching.holds
        drop(spool_directory, "event.tar")
        await running.until_done("event.tar")
    assert debris(spool_directory) == []


async def test_a_directory_that_is_removed_from_within_is_missed_at_once(
    spool_directory: Path, handler: Handler
) -> None:
    # A descriptor that is open in `.work` keeps the directory alive, so that no event tells of its own end.
    async with spooling(spool_directory, handler, rescan_seconds=3600) as running:
        await running.until_ready()
        for name in (".work", ".locks", ".receipts", ".failed"):
            shutil.rmtree(spool_directory / name)
        spool_directory.rmdir()
        await running.until(lambda: not running.state.watching.holds)
        spool_directory.mkdir()
        drop(spool_directory, "after.tar")
        await running.until_done("after.tar")
        assert running.state.watching.holds


async def test_a_folder_for_work_that_is_removed_is_made_again(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler, rescan_seconds=3600) as running:
        await running.until_ready()
        shutil.rmtree(spool_directory / ".work")
        drop(spool_directory, "app.tar")
        await running.until_done("app.tar")
        assert running.state.watching.holds
    assert debris(spool_directory) == []


async def test_a_directory_that_goes_away_during_a_job(spool_directory: Path, handler: Handler) -> None:
    handler.first("app.tar", lambda *_: os.rename(spool_directory, spool_directory.parent / "elsewhere"))
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: running.ends)
        spool_directory.mkdir()
        drop(spool_directory, "other.tar")
        await running.until_done("other.tar")
        await running.until(lambda: running.state.queue_depth == 0)
    assert visible(spool_directory.parent / "elsewhere") == ["app.tar"]


async def test_when_events_are_lost_everything_is_looked_at(spool_directory: Path, handler: Handler) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    async with spooling(spool_directory, handler, rescan_seconds=3600) as running:
        await running.until_ready()
        # The loop does not run meanwhile, so that the kernel's queue runs over; two names, so that events do not merge.
        files = [os.open(spool_directory / name, os.O_WRONLY | os.O_CREAT) for name in ("a~", "b~")]
        for _ in range(limit // 2 + 10):
            for name in ("a~", "b~"):
                os.close(os.open(spool_directory / name, os.O_WRONLY))
        drop(spool_directory, "app.tar")
        for file in files:
            os.close(file)
        await running.until_done("app.tar")
    assert [name for name, _ in handler.pushes] == ["app.tar"]


async def test_the_periodic_scan_finds_what_no_event_told_of(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler, rescan_seconds=0.2) as running:
        await running.until_ready()
        (spool_directory / "source~").write_bytes(b"linked")
        os.link(spool_directory / "source~", spool_directory / "app.tar")  # a link is no event of ours
        await running.until_done("app.tar")
    assert handler.pushes == [("app.tar", b"linked")]


async def test_folders_of_ours_that_are_removed_are_made_again(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler, rescan_seconds=0.2) as running:
        await running.until_ready()
        for name in (".receipts", ".failed", ".locks", ".work"):
            shutil.rmtree(spool_directory / name)
        drop(spool_directory, "app.tar")
        await running.until_done("app.tar")
        await running.until(lambda: running.state.writable.holds)
    assert receipt(spool_directory, "app.tar")["file"] == "app.tar"


class Disk:
    """A small file system that can be filled and made read-only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self) -> None:
        with (self.directory / ".filler").open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as exc:
                assert exc.errno == errno.ENOSPC

    def free(self) -> None:
        (self.directory / ".filler").unlink()

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.directory)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.directory)], check=True)

    def mount(self) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.directory)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


class PretendedDisk(Disk):
    """The same where nothing may be mounted: what writes durably, and the probe, meet the errors of such a disk."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(directory)
        self._error = 0
        real = os.fsync

        def fsync(fd: int) -> None:
            if self._error:
                raise OSError(self._error, os.strerror(self._error))
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)

    def fill(self) -> None:
        self._error = errno.ENOSPC

    def free(self) -> None:
        self._error = 0

    def remount(self, options: str) -> None:
        self._error = errno.EROFS if options == "ro" else 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    disk = Disk(directory)
    if not disk.mount():
        yield PretendedDisk(directory, monkeypatch)
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False, capture_output=True)


async def test_a_full_disk_is_emptied_by_pushing_what_is_on_it(disk: Disk, handler: Handler) -> None:
    if isinstance(disk, PretendedDisk):
        return  # there is no room to be given up there
    async with spooling(disk.directory, handler) as running:
        await running.until_ready()
        handler.first("bad.tar", ArchiveError("no archive"))
        drop(disk.directory, "app.tar", bytes(300_000))
        disk.fill()
        os.rename(disk.directory / ".filler", disk.directory / "bad.tar")
        await running.until_done("app.tar", "bad.tar")
    assert receipt(disk.directory, "app.tar")["size_bytes"] == 300_000
    assert failure(disk.directory, "bad.tar")["error"] == "no archive"


@pytest.mark.parametrize("is_dead", [True, False])
async def test_a_start_on_a_full_disk_uses_the_reserve_of_the_last_run(
    disk: Disk, handler: Handler, is_dead: bool
) -> None:
    if isinstance(disk, PretendedDisk):
        return  # there is no room to be given up there
    room = await in_thread(open_workdir, disk.directory)
    if is_dead:
        os.close(room._alive)
    else:
        await in_thread(room.close)
    drop(disk.directory, "app.tar")
    disk.fill()
    async with spooling(disk.directory, handler) as running:
        await running.until_done("app.tar")
    assert receipt(disk.directory, "app.tar")["file"] == "app.tar"


async def test_what_a_dead_run_had_set_aside_comes_before_what_is_newer(tmp_path: Path, handler: Handler) -> None:
    drop(tmp_path, "app:1.tar", b"older")
    room = await in_thread(open_workdir, tmp_path)
    await in_thread(partial(room.set_aside, room.layout.directory, "app:1.tar", done=None))
    drop(tmp_path, "app:2.tar", b"newer")
    os.close(room._alive)
    async with spooling(tmp_path, handler) as running:
        await running.until_done("app:1.tar", "app:2.tar")
    assert ["app:1.tar", "app:2.tar"] == [end.name for end in running.ends]


async def test_a_disk_without_any_room_defers_and_heals(disk: Disk, handler: Handler) -> None:
    async with spooling(disk.directory, handler) as running:
        await running.until_ready()
        disk.fill()
        drop_empty(disk.directory, "one.tar")
        for reserve in (disk.directory / ".work").glob("*/reserve"):
            reserve.unlink()
        disk.fill()
        drop_empty(disk.directory, "two.tar")
        await running.until(lambda: [entry.reason for entry in running.state.deferred()][-1:] == [Reason.SPOOL])
        assert "No space left on device" in running.state.deferred()[-1].error
        assert not running.state.writable.holds
        assert "two.tar" in visible(disk.directory)
        disk.free()
        await running.until_done("two.tar")
        await running.until(lambda: running.state.writable.holds)
    assert receipt(disk.directory, "two.tar")["file"] == "two.tar"


def drop_empty(directory: Path, name: str) -> None:
    (directory / f"{name}~").touch()
    os.rename(directory / f"{name}~", directory / name)


async def test_a_read_only_spool_is_said_to_be_one_and_heals(disk: Disk, handler: Handler) -> None:
    drop(disk.directory, "app.tar")
    disk.remount("ro")
    async with spooling(disk.directory, handler) as running:
        await running.until(lambda: running.state.scanned.holds and running.state.writable.error)
        assert "Read-only file system" in running.state.writable.error
        assert running.state.queue_depth == 1
        assert running.state.watching.holds
        disk.remount("rw")
        await running.until_done("app.tar")
    assert visible(disk.directory) == []


async def test_a_spool_that_becomes_read_only_during_a_push(
    spool_directory: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel makes a file system read-only under open files when the disk fails, and lets nobody else do so.
    disk = PretendedDisk(spool_directory, monkeypatch)
    handler.first("app.tar", lambda *_: disk.remount("ro"))
    async with spooling(disk.directory, handler) as running:
        await running.until_ready()
        drop(disk.directory, "app.tar")
        await running.until(lambda: [entry.reason for entry in running.state.deferred()] == [Reason.SPOOL])
        assert not running.state.writable.holds
        disk.remount("rw")
        await running.until_done("app.tar")
    # The push itself was good, and is not done twice.
    assert handler.attempts == ["app.tar"]
    assert [outcome for _, outcome in running.outcomes][-1] is Outcome.DONE


async def test_a_spool_that_is_unmounted_and_mounted_again(disk: Disk, handler: Handler) -> None:
    if isinstance(disk, PretendedDisk):
        return  # nothing to unmount
    async with spooling(disk.directory, handler, rescan_seconds=0.2) as running:
        await running.until_ready()
        disk.unmount()
        drop(disk.directory, "below.tar")
        await running.until_done("below.tar")
        assert disk.mount()
        drop(disk.directory, "above.tar")
        await running.until_done("above.tar")


async def test_a_file_that_cannot_be_read_is_said_to_be_one(
    spool_directory: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: object, flags: int, *arguments: object, **options: object) -> int:
        if str(path).endswith("app.tar") and not flags & os.O_PATH:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    drop(spool_directory, "app.tar")
    drop(spool_directory, "app:2.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app:2.tar")
        await running.until(lambda: running.state.deferred())
        (deferred,) = running.state.deferred()
        assert deferred.reason is Reason.FILE
        assert deferred.error == (
            "the file cannot be read: Permission denied (it belongs to user "
            f"{os.getuid()} and group {os.getgid()}, mode 644; the spooler is user {os.geteuid()})"
        )
        monkeypatch.undo()
        await running.until_done("app.tar")


async def test_a_file_that_cannot_be_removed_keeps_nobody_else_waiting(
    spool_directory: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def refuse(source: str, target: str, **folders: Any) -> None:
        if source == "app.tar":  # as for an immutable file, or one of another user in a sticky directory
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(source, target, **folders)

    names = [f"other{number}.tar" for number in range(5)]
    for name in ("app.tar", "app:2.tar", *names):
        drop(spool_directory, name)
    monkeypatch.setattr(os, "rename", refuse)
    async with spooling(spool_directory, handler, jobs_at_once=1) as running:
        await running.until_done("app:2.tar", *names)
        await running.until(lambda: running.state.deferred())
        (deferred,) = running.state.deferred()
        assert (deferred.name, deferred.reason) == ("app.tar", Reason.FILE)
        assert deferred.error.endswith("Operation not permitted")
        assert running.state.held_for is None
        monkeypatch.undo()
        await running.until_done("app.tar")
    assert handler.attempts.count("app.tar") == 1
