"""Clearing up after spoolers that have died, and keeping this one's working directory."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from registry_spooler.aio import in_thread
from registry_spooler.backoff import Backoff
from registry_spooler.folder import Folder, NotAFolder
from registry_spooler.spool import log
from registry_spooler.spool.directory.deaths import end_all_work, note_deaths, prune_deaths
from registry_spooler.spool.directory.files import (
    WORK,
    Identity,
    OddEntry,
    Writers,
    identity_of,
    open_file,
    open_own,
    read_lease,
)
from registry_spooler.spool.directory.locks import clear_locks, startup_lock, try_flock_file
from registry_spooler.spool.directory.workdir import (
    ALIVE,
    LEFT,
    NO_ROOM,
    RESERVE,
    RUN,
    Aside,
    WorkDir,
    aside_folders,
    empty_run,
    open_workdir,
    return_aside,
)
from registry_spooler.spool.scheduling.job import Entry
from registry_spooler.spool.scheduling.outcome import os_reason
from registry_spooler.spool.state import SpoolState


def open_recovered_workdir(directory: Path, given_back: set[tuple[str, str]]) -> WorkDir:
    """The folder of this run, after all that the dead have left is dealt with; OSError when there can be none.

    On a full disk, one of the dead gives its reserve for it. `given_back` is told of files as
    `WorkDir.given_back` has it.
    """
    try:
        workdir = open_workdir(directory)
    except OSError as exc:
        if exc.errno not in NO_ROOM or not _give_up_reserve(directory):
            raise
        workdir = open_workdir(directory)
    workdir.given_back = given_back
    try:
        recover(workdir)
    except BaseException:
        workdir.close()
        raise
    return workdir


def recover(workdir: WorkDir) -> bool:
    """Clear up after dead runs; blocks. Return whether live ones hold files aside: then it is worth coming back soon.

    Files whose names are taken are in `workdir.orphaned` then.
    """
    waiting = False
    work = workdir.layout.work
    for run, alive in _runs(work, but=workdir.folder.path.name):
        if alive is None:
            waiting = waiting or any(_asides(run))
        else:
            note_deaths(work, run)
            _clear(workdir, run)
    prune_deaths(work, workdir.layout.directory)
    return waiting


def _runs(work: Folder, *, but: str) -> Iterator[tuple[Folder, int | None]]:
    """The other runs, each with the lock that says that it is dead, which is held meanwhile."""
    for name in work.folder_names():
        if name != but and RUN.fullmatch(name):
            with suppress(FileNotFoundError, PermissionError, NotAFolder), work.subfolder(name) as run:
                with startup_lock(work):
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


def _clear(workdir: WorkDir, run: Folder) -> None:
    for own, name in list(_asides(run)):
        with run.subfolder(own) as folder:
            aside = Aside(folder, name)
            if _remove_done(aside):
                continue
            with suppress(OSError, OddEntry):
                workdir.given_back.add((name, identity_of(folder, name).mark))
            try:
                return_aside(aside, workdir.layout.directory)
            except FileExistsError:
                workdir.adopt(run, own, name)
    with suppress(OSError):
        empty_run(run)
        run.remove(ALIVE, missing_ok=True)
        workdir.layout.work.remove_folder(run.path.name)


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


RECOVER_SECONDS: Final = 2.0
"""After a file was taken away, when to look whether whoever did so died over it; below the 5 s for a take-over."""
LEAVE_SECONDS: Final = 1.0
"""Enough to remove a directory in."""
_LOST: Final = frozenset({errno.ENOENT, errno.ESTALE})
"""The directory, or a folder of the spooler's own, was removed or replaced."""
TROUBLE_SECONDS: Final = 5.0
"""How often to try again, at the least, when the directory is gone or cannot be written to."""
_PROBING: Final = Backoff(base_seconds=0.4, cap_seconds=TROUBLE_SECONDS)


async def orphans(workdir: WorkDir) -> list[Entry]:
    """Return the files that have lost their names, once."""
    entries = []
    while workdir.orphaned:
        aside = workdir.orphaned.pop(0)
        with suppress(OSError, OddEntry):
            identity = await in_thread(identity_of, aside.folder, aside.name)
            entries.append(Entry.found(aside.name, identity, aside=aside))
    return entries


class Housekeeper:
    """Keeps the folder of one run; `tend` is called when `due` says so."""

    def __init__(self, directory: Path, state: SpoolState) -> None:
        self.workdir: WorkDir | None = None
        """This run's folder, while the spool can be written to."""
        self._directory = directory
        self._state = state
        self._retired: list[WorkDir] = []
        self._given_back = set[tuple[str, str]]()
        self._recover_at = self._probe_at = 0.0
        self._failures = 0

    @property
    def due(self) -> float:
        """When to call `tend` again."""
        return self._probe_at if self.workdir is None else min(self._probe_at, self._recover_at)

    def retire(self) -> None:
        """The directory is gone, or another one: the next one gets a folder of its own. Jobs may use the old one."""
        if self.workdir is not None:
            self._retired.append(self.workdir)
        self.workdir = None
        self._recover_at = self._probe_at = 0.0
        self._failures = 0

    def leave(self) -> float:
        """The folder of all runs is gone: leave ours now, and look when the next is due, which is returned.

        When the whole directory is being removed, its end is told only once nothing in it is open any more; and
        whoever removes it shall not find new folders in it.
        """
        self.retire()
        self._probe_at = time.monotonic() + LEAVE_SECONDS
        return self._probe_at

    async def close_retired(self) -> None:
        """Clear up the folders that were left; to be called when no job uses them any more."""
        while self._retired:
            await in_thread(self._retired.pop().close)

    def file_left(self) -> None:
        """Look soon whether a spooler has died: somebody has taken a file out of the spool."""
        self._recover_at = min(self._recover_at, time.monotonic() + RECOVER_SECONDS)

    def suspect(self, error: str) -> None:
        """A job could not write to the spool: find out whether that is so for all, and when it heals."""
        if self._state.writable.set(False, error):
            log.trouble(error)
        self._probe_at = time.monotonic() + 1.0

    async def tend(self, *, rest_until: float) -> list[Entry]:
        """Have a folder that can be written to, and nothing of the dead in the others; all well, until `rest_until`.

        Return the files that come back by that, for the queue.
        """
        now = time.monotonic()
        entries: list[Entry] = []
        try:
            if now >= self._probe_at:
                entries = await self._probe()
                self._probe_at = rest_until
            if self.workdir is not None and now >= self._recover_at:
                self._recover_at = rest_until
                if await in_thread(recover, self.workdir):
                    self.file_left()  # live spoolers hold files aside: are they still alive when those should be back?
                entries += await orphans(self.workdir)
        except OSError as exc:
            self._not_writable(exc)
        return entries

    def was_given_back(self, name: str, identity: Identity) -> bool:
        """Return whether a dead run had set this content aside under this name."""
        return (name, identity.mark) in self._given_back

    async def forgive(self) -> None:
        """The spooler has been asked to stop: whatever ends it from here on is not the fault of what it works on."""
        for workdir in (*self._retired, self.workdir):
            if workdir is not None:
                await in_thread(end_all_work, workdir.folder)

    async def _probe(self) -> list[Entry]:
        entries: list[Entry] = []
        if self.workdir is None:
            # What the dead have worked on is known before the first job starts.
            workdir = await in_thread(open_recovered_workdir, self._directory, self._given_back)
            self._recover_at = time.monotonic() + RECOVER_SECONDS
            try:
                with suppress(OSError):
                    await in_thread(clear_locks, workdir.layout.locks)
                entries = [*await orphans(workdir), *await self._readmitted(workdir)]
            except BaseException:  # cancelled before it is in use
                self._retired.append(workdir)
                raise
            self.workdir = workdir
        else:
            await in_thread(self.workdir.probe)
        self._failures = 0
        was_known = self._state.writable.since is not None
        if self._state.writable.set(True) and was_known:
            log.recovered("the spool directory can be written to again")
        return entries

    async def _readmitted(self, workdir: WorkDir) -> list[Entry]:
        """Return files that have their names again: the queue hears of them before anything newer starts."""
        entries = []
        for name, mark in tuple(self._given_back):
            with suppress(OSError, OddEntry):
                identity = await in_thread(identity_of, workdir.layout.directory, name)
                if identity.mark == mark:
                    entries.append(Entry.found(name, identity, given_back=True))
        return entries

    def _not_writable(self, error: OSError) -> None:
        failures = self._failures + 1
        if error.errno in _LOST:
            self.retire()
        self._failures = failures
        self._probe_at = self._recover_at = time.monotonic() + _PROBING.bound_seconds(failures)
        if self._state.writable.set(False, f"the spool directory cannot be written to: {os_reason(error)}"):
            log.trouble(self._state.writable.error)
