"""A spooler's own folder in `.work/`: temporary files, files set aside, and a little room for the day the disk is full.

    .work/RUN/alive          locked for as long as the spooler lives
    .work/RUN/reserve        given up when a record finds no room: a full disk is emptied by pushing what is on it
    .work/RUN/N.tmp          a record that is being written
    .work/RUN/N/NAME         a file set aside: it is about to go to `.failed/`, or its name was taken again meanwhile
    .work/RUN/N.done.…/NAME  a file set aside to be removed: its receipt is on the disk, and the folder's name says
                             of which content

Whoever can lock another run's `alive` knows that its owner is dead, and clears up after it: `recover`.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from registry_spooler.spool.identity import Identity, OddEntry
from registry_spooler.spool.layout import Layout, write_durably
from registry_spooler.spool.lock import try_flock_file
from registry_spooler.spool.opened import open_file
from registry_spooler.spool.rename import rename_noreplace
from registry_spooler.spool.writers import Writers, read_lease

T = TypeVar("T")

RESERVE_BYTES: Final = 256 << 10
"""Enough for the records of a few jobs at once, and for the directory blocks that they may need."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Displaced:
    """A file that was set aside while its name was taken again: a job of its own, older than what has the name now."""

    name: str
    path: Path


class Room:
    """One run's folder; made by `open_room`. Its methods block, and may be called from several threads."""

    def __init__(self, layout: Layout, path: Path, alive: int) -> None:
        self.layout = layout
        self.path = path
        self.displaced: list[Displaced] = []
        """Files whose names are taken, for the spool to make jobs of and to remove from here."""
        self._alive = alive
        self._numbers = itertools.count()
        self._closed = False

    def close(self) -> None:
        """Leave: remove everything but files that were set aside, which the next start finds."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            _empty(self.path)
            if os.listdir(self.path) == ["alive"]:
                (self.path / "alive").unlink()
                self.path.rmdir()
        os.close(self._alive)

    def write(self, target: Path, content: bytes) -> None:
        """Write a record durably, out of the reserve when there is no other room."""
        temporary = self.path / f"{next(self._numbers)}.tmp"
        self.in_need(lambda: write_durably(content, temporary=temporary, target=target))

    def in_need(self, action: Callable[[], T]) -> T:
        """Do something that needs a little room on the disk, if need be by giving up the reserve."""
        try:
            return action()
        except OSError as exc:
            if exc.errno not in _NO_ROOM or not (self.path / "reserve").exists():
                raise
        (self.path / "reserve").unlink(missing_ok=True)
        return action()

    def keep_reserve(self) -> None:
        """Make the reserve when it is missing; OSError (ENOSPC) when there is no room for it."""
        path = self.path / "reserve"
        if path.exists():
            return
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def probe(self) -> None:
        """Can something be written in the spool? OSError when not. Folders that were removed are made again."""
        self.layout.prepare()
        for folder in (self.layout.directory, self.layout.receipts, self.layout.failed, self.layout.locks):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        path = self.path / f"{next(self._numbers)}.tmp"
        write_durably(b"probe", temporary=path, target=path.with_suffix(".probe"))
        path.with_suffix(".probe").unlink()
        self.keep_reserve()

    def set_aside(self, path: Path, *, done: Identity | None) -> Path:
        """Take a file out of the spool: from here on nobody finds it by its name. Returns where it is.

        `done`: the content that a durable receipt speaks of.
        """
        mark = f".done.{done.mark}" if done else ""
        folder = self.path / f"{next(self._numbers)}{mark}"
        self.in_need(folder.mkdir)
        try:
            self.in_need(lambda: os.rename(path, folder / path.name))
        except OSError:
            folder.rmdir()
            raise
        if path.parent.parent == self.path:  # it was aside before
            self.drop_folder(path)
        return folder / path.name

    def give_back(self, aside: Path) -> None:
        """Put a file that was set aside back under its name; when that cannot be done, it stays here as `displaced`."""
        try:
            _give_back(aside, self.layout.directory)
        except OSError:
            self.displaced.append(Displaced(aside.name, aside))

    def drop_folder(self, aside: Path) -> None:
        """Remove the folder that a file was set aside in, after the file."""
        with suppress(OSError):
            aside.parent.rmdir()

    def recover(self) -> bool:
        """Clear up after dead runs; blocks. Do live ones hold files aside, so that it is worth coming back soon?"""
        waiting = False
        for run in _folders(self.layout.work):
            if run == self.path:
                continue
            with _births(self.layout):
                alive = _lock_dead(run)
            if alive is None:
                waiting = waiting or bool(_asides(run))
                continue
            try:
                self._clear(run)
            finally:
                os.close(alive)
        return waiting

    def _clear(self, run: Path) -> None:
        for aside in _asides(run):
            if not _remove_done(aside):
                try:
                    _give_back(aside, self.layout.directory)
                except FileExistsError:
                    self._adopt(aside)
        with suppress(OSError):
            _empty(run)
            (run / "alive").unlink(missing_ok=True)
            run.rmdir()

    def _adopt(self, aside: Path) -> None:
        folder = self.path / str(next(self._numbers))
        os.rename(aside.parent, folder)
        self.displaced.append(Displaced(aside.name, folder / aside.name))


def open_room(layout: Layout) -> Room:
    """Make the folders of the spool and, in `.work/`, the folder of this run; OSError when that cannot be done."""
    layout.prepare()
    run = secrets.token_hex(8)
    path = layout.work / run
    with _births(layout):
        path.mkdir()
        (path / "alive").touch()
        alive = try_flock_file(path / "alive")
    if alive is None:
        raise OSError(errno.EWOULDBLOCK, "a lock that nobody else knows of is taken", str(path))
    room = Room(layout, path, alive)
    with suppress(OSError):  # it is made later, by `probe`
        room.keep_reserve()
    return room


def _give_back(aside: Path, directory: Path) -> None:
    with suppress(FileNotFoundError):
        rename_noreplace(aside, directory / aside.name)
    with suppress(OSError):
        aside.parent.rmdir()


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _asides(run: Path) -> list[Path]:
    """The files set aside in a run's folder."""
    found: list[Path] = []
    with suppress(FileNotFoundError):  # its owner is at work
        for folder in _folders(run):
            found += [folder / name for name in os.listdir(folder)]
    return found


def _remove_done(aside: Path) -> bool:
    """Remove a file whose receipt is on the disk, if it still holds just what the receipt speaks of."""
    _, _, mark = aside.parent.name.partition(".done.")
    if not mark:
        return False
    try:
        with closing(open_file(aside, name=aside.name, must_read=False)) as file, read_lease(file.fd) as writers:
            if writers is Writers.SOME or mark != file.identity.mark:
                return False
            aside.unlink()
    except (OSError, OddEntry):
        return False
    return True


def _lock_dead(run: Path) -> int | None:
    """Lock a run whose owner is dead; None while it lives. The caller closes what is returned."""
    try:
        return try_flock_file(run / "alive")
    except FileNotFoundError:
        # Killed before it had one, or after it had removed it.
        with suppress(FileNotFoundError):  # cleared up by somebody else meanwhile
            (run / "alive").touch()
            return try_flock_file(run / "alive")
    return None


@contextmanager
def _births(layout: Layout) -> Iterator[None]:
    """Keep apart who makes a folder and who clears up: one that has just been made looks like a dead one's."""
    fd = os.open(layout.work / ".births", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # held for a few system calls only
        yield
    finally:
        os.close(fd)


def _empty(run: Path) -> None:
    """Remove what is not a file set aside."""
    folders = _folders(run)
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
    for name in {*os.listdir(run)} - {folder.name for folder in folders} - {"alive"}:
        (run / name).unlink()
