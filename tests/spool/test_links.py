"""Links in the place of the spooler's own folders and files: refused, nothing beyond them is touched, and it heals."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from registry_spooler.errors import ArchiveError
from registry_spooler.spool.directory.workdir import open_workdir
from registry_spooler.spool.housekeeping import open_recovered_workdir
from support.spool.scripted import Handler, drop, failure, receipt, spooling, visible

OWN = (".locks", ".work", ".receipts", ".failed")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Somebody's folder, with what a spooler would take for its own."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_bytes(b"a key")
    (home / ("0" * 16)).mkdir()
    (home / ("0" * 16) / "reserve").write_bytes(b"somebody's")
    for name in ("notes", "app.json", "app.tar.json", "app.tar.error.json", "0" * 40, "0.tmp"):
        (home / name).write_bytes(b"somebody's")
    return home


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", OWN)
async def test_a_link_in_the_place_of_a_folder(spool_directory: Path, home: Path, handler: Handler, name: str) -> None:
    before = content(home)
    (spool_directory / name).symlink_to(home)
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: running.state.writable.error)
        assert f"{name} is a symbolic link where the spooler has a folder of its own" in running.state.writable.error
        assert handler.attempts == []
        assert content(home) == before
        (spool_directory / name).unlink()
        await running.until_done("app.tar")
    assert content(home) == before
    assert receipt(spool_directory, "app.tar")["file"] == "app.tar"


async def test_locks_that_lead_to_the_spool_itself_remove_no_file(spool_directory: Path, handler: Handler) -> None:
    (spool_directory / ".locks").symlink_to(".")
    names = ["a.tar", "b.tar", "0" * 40]
    for name in names:
        drop(spool_directory, name)
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: running.state.writable.error)
    assert visible(spool_directory) == sorted(names)


@pytest.mark.parametrize("name", OWN)
async def test_a_file_in_the_place_of_a_folder(spool_directory: Path, handler: Handler, name: str) -> None:
    (spool_directory / name).write_bytes(b"somebody's")
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: running.state.writable.error)
        assert f"{name} is a file where" in running.state.writable.error
        assert (spool_directory / name).read_bytes() == b"somebody's"
        (spool_directory / name).unlink()
        await running.until_done("app.tar")


@pytest.mark.parametrize("name", OWN)
async def test_a_folder_that_is_swapped_for_a_link_during_a_push(
    spool_directory: Path, home: Path, handler: Handler, name: str
) -> None:
    before = content(home)

    def swap(*_: object) -> None:
        os.rename(spool_directory / name, spool_directory / "moved~")
        (spool_directory / name).symlink_to(home)

    handler.first("app.tar", swap)
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: running.state.writable.error)
        await running.until(lambda: "symbolic link" in running.state.writable.error)
        assert visible(spool_directory) == ["app.tar", "moved~"]
        (spool_directory / name).unlink()
        await running.until_done("app.tar")
        await running.until(lambda: running.state.writable.holds)
    assert content(home) == before
    assert receipt(spool_directory, "app.tar")["file"] == "app.tar"


async def test_links_and_folders_that_are_called_like_records(
    spool_directory: Path, home: Path, handler: Handler
) -> None:
    before = content(home)
    for folder in (".receipts", ".failed"):
        (spool_directory / folder).mkdir()
    (spool_directory / ".receipts" / "good.tar.json").symlink_to(home / "notes")
    (spool_directory / ".receipts" / "folder.tar.json").mkdir()
    (spool_directory / ".failed" / "bad.tar.error.json").symlink_to(home / "notes")
    handler.first("bad.tar", ArchiveError("no archive"))
    for name in ("good.tar", "folder.tar", "bad.tar"):
        drop(spool_directory, name)
    async with spooling(spool_directory, handler) as running:
        await running.until_done("good.tar", "bad.tar")
        await running.until(lambda: running.state.deferred())
        (deferred,) = running.state.deferred()
        assert (deferred.name, "Is a directory" in deferred.error) == ("folder.tar", True)
        (spool_directory / ".receipts" / "folder.tar.json").rmdir()
        await running.until_done("folder.tar")
    assert content(home) == before
    assert not (spool_directory / ".receipts" / "good.tar.json").is_symlink()
    assert failure(spool_directory, "bad.tar")["error"] == "no archive"


def test_a_link_in_the_place_of_a_temporary_file(spool_directory: Path, home: Path) -> None:
    room = open_workdir(spool_directory)
    before = content(home)
    for number in range(5):
        (room.folder.path / f"{number}.tmp").symlink_to(home / "notes")
    for _ in range(5):
        with pytest.raises(FileExistsError):
            room.write(room.layout.receipts, "app.json", b"a record")
    room.write(room.layout.receipts, "app.json", b"a record")
    room.close()
    assert content(home) == before


def test_only_what_spoolers_make_is_cleared_up(spool_directory: Path, home: Path) -> None:
    """A folder of somebody's as `.work`, and links in a dead one's: what is called otherwise stays."""
    open_workdir(spool_directory).close()
    work = spool_directory / ".work"
    (work / "notes").mkdir()
    (work / "notes" / "0.tmp").write_bytes(b"somebody's")
    dead = work / ("1" * 16)
    dead.mkdir()
    (dead / "alive").symlink_to(home / "notes")
    (work / ("2" * 16)).symlink_to(home / ("0" * 16))
    dead = work / ("3" * 16)
    (dead / "0.done.1.2.3").mkdir(parents=True)
    (dead / "1").symlink_to(home)
    (dead / "2.tmp").symlink_to(home / "notes")
    (dead / "thesis").write_bytes(b"somebody's")
    before = content(home)
    room = open_recovered_workdir(spool_directory, set())
    room.close()
    assert content(home) == before
    assert (work / "notes" / "0.tmp").read_bytes() == b"somebody's"
    assert sorted(os.listdir(dead)) == ["1", "thesis"]
    assert visible(spool_directory) == []


async def test_names_that_are_swapped_all_the_time(spool_directory: Path, home: Path, handler: Handler) -> None:
    """Whatever a folder's name leads to at any instant, nothing beyond is touched, and in the end all is pushed."""
    before = content(home)

    def swap() -> None:
        for _ in range(500):
            for name in OWN:
                moved = spool_directory / f"{name[1:]}~"
                try:
                    os.rename(spool_directory / name, moved)
                    (spool_directory / name).symlink_to(home)
                    os.unlink(spool_directory / name)
                    os.rename(moved, spool_directory / name)
                except OSError:
                    continue  # the spooler has made a new one meanwhile

    names = [f"app{number}.tar" for number in range(30)]
    swapper = threading.Thread(target=swap)
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        swapper.start()
        for name in names:
            drop(spool_directory, name, name.encode())
            await running.until(lambda: True)
        await running.until(lambda: not swapper.is_alive(), seconds=60)
        await running.until(lambda: running.state.queue_depth == 0, seconds=30)
    assert content(home) == before
    assert {name for name, _ in handler.pushes} >= set(names)
