"""Clearing up after spoolers that have died: what they had set aside, what they worked on, and their reserve."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from registry_spooler.folder import Folder, NotAFolder
from registry_spooler.spool.deaths import note_deaths, prune_deaths
from registry_spooler.spool.identity import OddEntry, look_at
from registry_spooler.spool.layout import WORK, open_own
from registry_spooler.spool.lock import births, try_flock_file
from registry_spooler.spool.opened import open_file
from registry_spooler.spool.room import (
    ALIVE,
    LEFT,
    NO_ROOM,
    RESERVE,
    RUN,
    Aside,
    Room,
    aside_folders,
    empty_run,
    open_room,
    return_aside,
)
from registry_spooler.spool.writers import Writers, read_lease


def open_recovered_room(directory: Path, given_back: set[tuple[str, str]]) -> Room:
    """A room of this run, after all that the dead have left is seen to; OSError when there can be none.

    On a full disk, one of the dead gives its reserve for it. `given_back` is told of files as `Room.given_back` has it.
    """
    try:
        room = open_room(directory)
    except OSError as exc:
        if exc.errno not in NO_ROOM or not _give_up_reserve(directory):
            raise
        room = open_room(directory)
    room.given_back = given_back
    try:
        recover(room)
    except BaseException:
        room.close()
        raise
    return room


def recover(room: Room) -> bool:
    """Clear up after dead runs; blocks. Return whether live ones hold files aside: then it is worth coming back soon.

    Files whose names are taken are in `room.displaced` then.
    """
    waiting = False
    work = room.layout.work
    for run, alive in _runs(work, but=room.folder.path.name):
        if alive is None:
            waiting = waiting or any(_asides(run))
        else:
            note_deaths(work, run)
            _clear(room, run)
    prune_deaths(work, room.layout.directory)
    return waiting


def _runs(work: Folder, *, but: str) -> Iterator[tuple[Folder, int | None]]:
    """The other runs, each with the lock that says that it is dead, which is held meanwhile."""
    for name in work.folder_names():
        if name != but and RUN.fullmatch(name):
            with suppress(FileNotFoundError, PermissionError, NotAFolder), work.subfolder(name) as run:
                with births(work):
                    alive = _lock_dead(run)
                try:
                    yield run, alive
                finally:
                    if alive is not None:
                        os.close(alive)


def _lock_dead(run: Folder) -> int | None:
    """Lock a run whose owner is dead; None while it lives, or is none. The caller closes what is returned."""
    try:
        return try_flock_file(run, ALIVE)
    except FileNotFoundError:
        # Killed before it had one, or after it had removed it.
        with suppress(FileNotFoundError):  # cleared up by somebody else meanwhile
            os.close(run.open_file(ALIVE, os.O_RDWR | os.O_CREAT))
            return try_flock_file(run, ALIVE)
    except OSError:
        return None  # a link, or somebody else's
    return None


def _clear(room: Room, run: Folder) -> None:
    for own, name in list(_asides(run)):
        with run.subfolder(own) as folder:
            aside = Aside(folder, name)
            if _remove_done(aside):
                continue
            with suppress(OSError, OddEntry):
                room.given_back.add((name, look_at(folder, name).mark))
            try:
                return_aside(aside, room.layout.directory)
            except FileExistsError:
                room.adopt(run, own, name)
    with suppress(OSError):
        empty_run(run)
        run.remove(ALIVE, missing_ok=True)
        room.layout.work.remove_folder(run.path.name)


def _asides(run: Folder) -> Iterator[tuple[str, str]]:
    """The folders and names of the files set aside in a run's folder."""
    with suppress(FileNotFoundError):  # its owner is at work
        for own in aside_folders(run):
            with run.subfolder(own) as folder:
                names = folder.names()
            yield from ((own, name) for name in names)


def _remove_done(aside: Aside) -> bool:
    """Remove a file whose receipt is on the disk, if it still holds just what the receipt speaks of."""
    _, _, mark = aside.folder.path.name.partition(".done.")
    if not mark:
        return False
    try:
        with (
            closing(open_file(aside.folder, aside.name, must_read=False)) as file,
            read_lease(file.fd) as writers,
        ):
            if writers is not Writers.NONE or mark != file.identity.mark:
                return False  # it is pushed once more
            aside.remove()
    except (OSError, OddEntry):
        return False
    return True


def _give_up_reserve(directory: Path) -> bool:
    """Remove the reserve that a stopped or a dead run has left. Return whether there was one."""
    work = open_own(directory, WORK)
    if work is None:
        return False
    with work:
        if work.has(LEFT):
            work.remove(LEFT, missing_ok=True)
            return True
        for run, alive in _runs(work, but=""):
            if alive is not None and run.has(RESERVE):
                run.remove(RESERVE, missing_ok=True)
                return True
    return False
