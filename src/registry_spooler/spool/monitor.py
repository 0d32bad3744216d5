"""The watch on the spool directory and the scans. What they see goes to the spool, which owns the queue.

Events are gathered by name, so that a burst of them costs one look per file: an event only says that something has
happened to a name. When events may have been lost (the kernel's queue overflowed) `Changes.everything` asks for a scan;
when the watch itself is lost (the directory was removed, renamed or unmounted) the directory is watched anew as soon as
there is one under the same path. https://man7.org/linux/man-pages/man7/inotify.7.html

Watch first, then scan, and let the queue drop what it knows already: so nothing that arrives is missed. One loop,
`_tend`, does everything that is due at a time; when nothing waits it wakes up for the rescan only.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
from asyncinotify import Event, Inotify, Mask

from registry_spooler.aio import in_thread
from registry_spooler.backoff import Backoff
from registry_spooler.folder import Folder
from registry_spooler.spool import log
from registry_spooler.spool.directory.files import OWN, Identity, OddEntry, identity_of, kind_of
from registry_spooler.spool.filename import display, is_ignored
from registry_spooler.spool.housekeeping import TROUBLE_SECONDS, Housekeeper
from registry_spooler.spool.records import look_for_failed
from registry_spooler.spool.scheduling.job import Arrival, Entry
from registry_spooler.spool.scheduling.outcome import os_reason
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.state import OddEntryShown, SpoolState


@dataclass(slots=True, kw_only=True)
class Listing:
    """What was seen in a directory. Names are as the file system has them."""

    files: dict[str, Identity] = field(default_factory=dict)
    arrivals: dict[str, Arrival] = field(default_factory=dict)
    """The files among them that events have told of."""
    touched: set[str] = field(default_factory=set)
    """Those whose times, owner or mode have changed, and nothing else."""
    recovered: list[Entry] = field(default_factory=list)
    """Files that a dead spooler had set aside, or that have lost their names."""
    scan_started: float | None = None
    """For a listing of everything: when it began (monotonic clock)."""
    odd: dict[str, str] = field(default_factory=dict)
    """Entries that are no regular files, with their kind."""
    gone: set[str] = field(default_factory=set)
    """Names that were asked for and do not exist."""
    stale: int = 0
    """Files that have been "being written" (`…~`) for too long."""
    failed: list[str] | None = None
    """Files in `.failed/`; None when they could not be listed, or need not be."""


def list_directory(directory: Path, *, stale_after_seconds: float) -> Listing:
    """List everything; blocks. OSError when the directory is not there or cannot be read. Opens no file."""
    listing = Listing(scan_started=time.monotonic())
    stale_before = time.time() - stale_after_seconds
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                _take(listing, entry, stale_before)
            except FileNotFoundError:
                continue  # gone between the reading of its name and the look at it
    with suppress(OSError):  # who works in there says what is wrong
        listing.failed = look_for_failed(directory)
    return listing


def list_names(directory: Path, names: Iterable[str]) -> Listing:
    """List some names only; blocks. OSError when that cannot be done."""
    listing = Listing()
    with Folder.open(directory) as folder:
        for name in names:
            try:
                listing.files[name] = identity_of(folder, name)
            except FileNotFoundError:
                listing.gone.add(name)
            except OddEntry as odd:
                listing.odd[name] = odd.kind
    return listing


def _take(listing: Listing, entry: os.DirEntry[str], stale_before: float) -> None:
    if entry.name.endswith("~") and not entry.name.startswith("."):
        status = entry.stat(follow_symlinks=False)
        listing.stale += stat.S_ISREG(status.st_mode) and status.st_mtime < stale_before
    elif not is_ignored(entry.name):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            listing.files[entry.name] = Identity.of(status)
        else:
            listing.odd[entry.name] = kind_of(status.st_mode)


_MASK: Final = (
    Mask.MOVED_TO
    | Mask.CLOSE_WRITE
    | Mask.ATTRIB
    | Mask.CREATE
    | Mask.MOVED_FROM
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLYDIR
)
_LEFT: Final = Mask.MOVED_FROM | Mask.DELETE
_LOST: Final = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED
_EVENTS_AT_ONCE: Final = 256


@dataclass(slots=True)
class Changes:
    """What has happened since the last look, by file name."""

    arrived: dict[str, Arrival] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    """Their times, owner or mode changed: no arrival, but somebody may have mended what a job stumbled over."""
    made: set[str] = field(default_factory=set)
    """Made in place: no file is complete then, but a directory, a link or a pipe is all that it will be."""
    everything: bool = False
    """Events were lost: only a full scan tells what is there."""
    own_gone: bool = False
    """A folder of the spooler's own was removed or renamed: with the rest of the directory, perhaps."""
    lost: bool = False
    """This directory is not watched any more."""

    def add(self, event: Event) -> None:
        """Take in one event. Names that are ignored leave no trace."""
        if event.mask & Mask.Q_OVERFLOW:
            self.everything = True
        elif event.mask & _LOST:
            self.lost = True
        elif event.name is not None:
            self._add_name(os.fspath(event.name), event.mask)

    def _add_name(self, name: str, mask: Mask) -> None:
        if is_ignored(name):
            self.own_gone |= name in OWN and bool(mask & _LEFT)
        elif mask & (Mask.MOVED_TO | Mask.CLOSE_WRITE):
            self.arrived.pop(name, None)  # the order is that of the last arrivals
            self.arrived[name] = Arrival.RENAMED if mask & Mask.MOVED_TO else Arrival.CLOSED
            self.left.discard(name)
        elif mask & Mask.ATTRIB:
            self.touched.add(name)
        elif mask & Mask.CREATE:
            self.made.add(name)
        else:
            self.left.add(name)
            self.arrived.pop(name, None)


class Watch:
    """A watch that is on; made by `open_watch`."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self._changes = Changes()
        self._news = anyio.Event()

    async def changes(self) -> Changes:
        """Wait until something has happened, and return all of it. One task at a time."""
        await self._news.wait()
        changes, self._changes = self._changes, Changes()
        if not changes.lost:
            self._news = anyio.Event()
        return changes

    async def read(self) -> None:
        """Gather events until the watch is lost."""
        while not self._changes.lost:
            try:
                event = await self._inotify.get()
            except OSError:
                self._changes.lost = True
            else:
                self._changes.add(event)  # (`_changes` may have become another one during the wait)
            self._news.set()


@asynccontextmanager
async def open_watch(directory: Path) -> AsyncIterator[Watch]:
    """Watch a directory; OSError when it is not there or cannot be watched. From here on no event is missed.

    The caller runs `read` in a task of its own.
    """
    with Inotify(cache_size=_EVENTS_AT_ONCE) as inotify:
        os.set_blocking(inotify.fd, False)
        await in_thread(inotify.add_watch, directory, _MASK)
        yield Watch(inotify)


_REOPENING: Final = Backoff(base_seconds=0.1, cap_seconds=TROUBLE_SECONDS)


class DirectoryMonitor:
    """Watches one directory, and gives what it sees to `take`; `run` is a task of its own."""

    def __init__(self, settings: SpoolSettings, state: SpoolState, take: Callable[[Listing], Awaitable[None]]) -> None:
        self._settings = settings
        self._state = state
        self._take = take
        self._odd: dict[str, str] = {}
        self._wanted = anyio.Event()
        self._scan_at = 0.0
        self.housekeeper = Housekeeper(settings.directory, state)

    async def run(self) -> None:
        """Watch until cancelled; trouble with the directory is waited out, never raised."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                async with open_watch(self._settings.directory) as watch:
                    if self._state.watching.set(True) and failures:
                        log.recovered(f"the spool directory {self._settings.directory} is watched again")
                    await self._watch(watch)
                error = f"the spool directory {self._settings.directory} was removed, replaced or unmounted"
            except OSError as exc:
                error = f"the spool directory {self._settings.directory} cannot be watched: {os_reason(exc)}"
            except ExceptionGroup as exc:
                error = f"watching the spool directory {self._settings.directory} failed: internal error"
                logging.getLogger(log.LOGGER).exception("%s", error, exc_info=exc)
            self.housekeeper.retire()
            if self._state.watching.set(False, error):
                log.trouble(error)
            failures = 1 if time.monotonic() - began > TROUBLE_SECONDS else failures + 1
            await anyio.sleep(_REOPENING.bound_seconds(failures))

    async def list_names(self, names: Iterable[str]) -> Listing:
        """Return what is there now under these names; nothing when that cannot be seen."""
        try:
            listing = await in_thread(list_names, self._settings.directory, names)
        except OSError:
            self._scan_at = 0.0  # the scan says what is wrong
            self._wanted.set()
            return Listing()
        self._note_odd(self._odd | listing.odd)
        return listing

    async def count_failed(self) -> None:
        """Count the files in `.failed/` again: some have come, or were fetched back from there."""
        with suppress(OSError):
            shown = tuple(self._state.failures)
            self._state.keep_failures(await in_thread(look_for_failed, self._settings.directory), shown)

    def suspect(self, error: str) -> None:
        """A job could not write to the spool: find out more, now."""
        self.housekeeper.suspect(error)
        self._wanted.set()

    async def _watch(self, watch: Watch) -> None:
        """Give what happens in this one directory to the spool, until it is lost."""
        self._scan_at = 0.0
        async with anyio.create_task_group() as tasks:

            async def until_lost(part: Callable[[], Awaitable[None]]) -> None:
                await part()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch.read)
            tasks.start_soon(until_lost, self._tend)
            await until_lost(lambda: self._follow(watch))

    async def _follow(self, watch: Watch) -> None:
        while not (changes := await watch.changes()).lost:
            if changes.everything:
                self._scan_at = 0.0
            if changes.own_gone:
                self._scan_at = min(self._scan_at, self.housekeeper.leave())
            if changes.left:
                self.housekeeper.file_left()
                await self._take(Listing(gone=changes.left))
            if changes.left or changes.everything or changes.own_gone:
                self._wanted.set()
            touched = changes.touched - changes.arrived.keys()
            if touched or changes.arrived:
                listing = await self.list_names([*touched, *changes.arrived])
                listing.arrivals, listing.touched = changes.arrived, touched
                await self._take(listing)
            await self._warn_of_odd(changes.made - changes.arrived.keys())

    async def _warn_of_odd(self, names: AbstractSet[str]) -> None:
        """Warn of what was made in place and is no file. Files are heard of when they are complete."""
        if names:
            with suppress(OSError):
                listing = await in_thread(list_names, self._settings.directory, names)
                self._note_odd(self._odd | listing.odd)

    def _note_odd(self, odd: dict[str, str]) -> None:
        for name, kind in odd.items():
            if self._odd.get(name) != kind:
                log.odd(name, kind)
        self._odd = odd
        self._state.odd = tuple(OddEntryShown(display(name), kind) for name, kind in sorted(odd.items()))

    async def _tend(self) -> None:
        """Scan, keep our folder, clear up after the dead; return when the directory is not the watched one any more."""
        watched = await in_thread(_inode_of, self._settings.directory)
        while True:
            self._wanted = anyio.Event()
            if time.monotonic() >= self._scan_at and not await self._scan(watched):
                return
            await self._take(Listing(recovered=await self.housekeeper.tend(rest_until=self._scan_at)))
            with anyio.move_on_after(max(0.0, min(self._scan_at, self.housekeeper.due) - time.monotonic())):
                await self._wanted.wait()

    async def _scan(self, watched: tuple[int, int] | None) -> bool:
        """List everything; return False when another directory has taken the place of the one that is watched."""
        started, shown = time.monotonic(), tuple(self._state.failures)
        self._scan_at = started + self._settings.rescan_seconds
        try:
            listing = await in_thread(self._list)
        except OSError as exc:
            self._scan_at = started + min(TROUBLE_SECONDS, self._settings.rescan_seconds)
            if self._state.watching.set(False, f"the spool directory cannot be read: {os_reason(exc)}"):
                log.trouble(self._state.watching.error)
            return await in_thread(_inode_of, self._settings.directory) == watched
        if await in_thread(_inode_of, self._settings.directory) != watched:
            return False
        self._state.watching.set(True)
        await self._take(listing)
        self._note_odd(listing.odd)
        self._state.stale_count = listing.stale
        self._state.scanned.set(True)
        self._state.last_scan = time.time()
        if listing.failed is not None:
            self._state.keep_failures(listing.failed, shown)
        return True

    def _list(self) -> Listing:
        return list_directory(self._settings.directory, stale_after_seconds=self._settings.stale_after_seconds)


def _inode_of(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
