"""The smaller parts by themselves: locks, renaming, the room."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_spooler.folder import Folder
from registry_spooler.spool.directory import files as rename
from registry_spooler.spool.directory.files import Identity, rename_noreplace
from registry_spooler.spool.directory.locks import clear_locks, try_lock
from registry_spooler.spool.directory.workdir import open_workdir
from registry_spooler.spool.housekeeping import recover
from support.spool.scripted import debris, visible


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder.open(tmp_path) as folder:
        yield folder


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path: Path, folder: Folder) -> None:
    first = try_lock(folder, "team/app")
    assert first is not None
    assert try_lock(folder, "team/app") is None
    other = try_lock(folder, "team/other")
    assert other is not None
    other.release()
    first.release()
    assert os.listdir(tmp_path) == []


def test_locks_exclude_each_other_while_their_files_come_and_go(tmp_path: Path, folder: Folder) -> None:
    inside, mistakes, rounds = [0], [], [0]

    def work() -> None:
        for _ in range(1500):
            lock = try_lock(folder, "app")
            if lock is None:
                continue
            inside[0] += 1
            if inside[0] != 1:
                mistakes.append(inside[0])
            inside[0] -= 1
            rounds[0] += 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mistakes == []
    assert rounds[0] > 0
    assert os.listdir(tmp_path) == []


def test_locks_of_the_dead_are_cleared_and_those_of_the_living_are_not(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / ("0" * 40)).touch()
    (tmp_path / "somebody's").touch()
    held = try_lock(folder, "app")
    assert held is not None
    clear_locks(folder)
    assert len(os.listdir(tmp_path)) == 2
    held.release()
    assert os.listdir(tmp_path) == ["somebody's"]


@pytest.mark.parametrize("system", ["renameat2", "link", "neither"])
def test_renaming_never_replaces(tmp_path: Path, folder: Folder, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if system != "renameat2":
        monkeypatch.setattr(rename, "_renameat2", lambda *_: errno.EINVAL)
    if system == "neither":

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").write_bytes(b"source")
    (tmp_path / "taken").write_bytes(b"taken")
    with pytest.raises(FileExistsError):
        rename_noreplace(folder, "source", folder, "taken")
    rename_noreplace(folder, "source", folder, "free")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"taken": b"taken", "free": b"source"}
    with pytest.raises(FileNotFoundError):
        rename_noreplace(folder, "nothing", folder, "target")


def test_a_room_leaves_nothing_but_what_is_aside(spool_directory: Path) -> None:
    room = open_workdir(spool_directory)
    (spool_directory / "app.tar").write_bytes(b"content")
    aside = room.set_aside(room.layout.directory, "app.tar", done=None)
    path = aside.folder.path / aside.name
    room.close()
    room.close()
    assert path.read_bytes() == b"content"

    later = open_workdir(spool_directory)
    assert not recover(later)
    assert (spool_directory / "app.tar").read_bytes() == b"content"
    assert later.orphaned == []
    later.close()
    assert debris(spool_directory) == []


@pytest.mark.parametrize("as_pushed", [True, False])
def test_what_was_aside_to_be_removed_is_removed_if_it_is_what_was_pushed(
    spool_directory: Path, as_pushed: bool
) -> None:
    room = open_workdir(spool_directory)
    (spool_directory / "app.tar").write_bytes(b"content")
    identity = Identity.of(os.stat(spool_directory / "app.tar"))
    aside = room.set_aside(room.layout.directory, "app.tar", done=identity)
    if not as_pushed:
        with (aside.folder.path / aside.name).open("ab") as file:
            file.write(b" and more")
    room.close()

    later = open_workdir(spool_directory)
    recover(later)
    later.close()
    assert visible(spool_directory) == ([] if as_pushed else ["app.tar"])
    assert debris(spool_directory) == []


def test_what_was_aside_while_its_name_was_taken_is_kept_beside_it(spool_directory: Path) -> None:
    room = open_workdir(spool_directory)
    (spool_directory / "app.tar").write_bytes(b"older")
    room.set_aside(room.layout.directory, "app.tar", done=None)
    (spool_directory / "app.tar").write_bytes(b"newer")
    room.close()

    later = open_workdir(spool_directory)
    recover(later)
    (orphaned,) = later.orphaned
    assert (orphaned.name, orphaned.folder.read("app.tar", 100)) == ("app.tar", b"older")
    assert (spool_directory / "app.tar").read_bytes() == b"newer"
    later.close()


def test_the_living_are_left_alone(spool_directory: Path) -> None:
    (spool_directory / "app.tar").write_bytes(b"content")
    living, other = open_workdir(spool_directory), open_workdir(spool_directory)
    assert not recover(other)
    aside = living.set_aside(living.layout.directory, "app.tar", done=None)
    assert recover(other)
    assert aside.folder.has("app.tar")
    living.give_back(aside)
    living.close()
    other.close()
    assert visible(spool_directory) == ["app.tar"]
    assert debris(spool_directory) == []


def test_the_longest_name_can_be_set_aside(spool_directory: Path) -> None:
    room = open_workdir(spool_directory)
    path = spool_directory / ("x" * 255)
    path.touch()
    room.give_back(room.set_aside(room.layout.directory, path.name, done=Identity.of(os.stat(path))))
    room.close()
    assert visible(spool_directory) == ["x" * 255]
