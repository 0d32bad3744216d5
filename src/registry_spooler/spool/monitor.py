"""Keeping the queue true to the spool directory: the watch and the scans.

What is read is gathered by name, so that a burst of events costs one look per file. An event only says "look at this
name"; what is there is found out by looking. When events may have been lost (the queue of the kernel ran over) the
answer is `everything`; when the watch itself is lost (the directory was removed, renamed or unmounted) it is
`lost`, and the caller watches anew. https://man7.org/linux/man-pages/man7/inotify.7.html

Watch first, then scan, and let the queue drop what is known already: so nothing that arrives is missed. When the
directory is removed, replaced or unmounted, all of it starts again as soon as there is one under the same path. One
loop, `_tend`, does everything that comes around by time; when nothing waits it wakes up for the rescan only.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
from asyncinotify import Event, Inotify, Mask

from registry_spooler.aio import in_thread
from registry_spooler.backoff import Backoff
from registry_spooler.folder import Folder
from registry_spooler.spool import log
from registry_spooler.spool.directory.files import OWN, Identity, OddEntry, kind_of, look_at
from registry_spooler.spool.filename import display, is_ignored
from registry_spooler.spool.housekeeping import TROUBLE_SECONDS, Housekeeper
from registry_spooler.spool.records import look_for_failed
from registry_spooler.spool.scheduling.job import Arrival, Clock, Entry, Phase, parse_name
from registry_spooler.spool.scheduling.outcome import os_reason
from registry_spooler.spool.scheduling.queue import Queue
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.state import OddEntryShown, SpoolState


@dataclass(slots=True, kw_only=True)
class Listing:
    """What is in a directory. Names are as the file system has them."""

    files: dict[str, Identity] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    """Entries that are no regular files, with their kind."""
    gone: set[str] = field(default_factory=set)
    """Names that were asked for and have nothing behind them."""
    stale: int = 0
    """Files that have been "being written" (`…~`) for too long."""
    failed: list[str] | None = None
    """Files in `.failed/`; None when nobody has looked there, or could."""


def list_directory(directory: Path, *, stale_after_seconds: float) -> Listing:
    """Look at everything; blocks. OSError when the directory is not there or cannot be read. Opens no file."""
    listing = Listing()
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


def look_at_names(directory: Path, names: list[str]) -> Listing:
    """Look at some names only; blocks. OSError when that cannot be done."""
    listing = Listing()
    with Folder.open(directory) as folder:
        for name in names:
            try:
                listing.files[name] = look_at(folder, name)
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
_AT_ONCE: Final = 500
"""So many files are taken into the queue before others get the event loop."""


class DirectoryMonitor:
    """Keeps one directory; `run` is a task of its own."""

    def __init__(
        self, settings: SpoolSettings, queue: Queue, state: SpoolState, *, clock: Clock, wake: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._state = state
        self._clock = clock
        self._wake = wake
        self._warned: dict[str, str] = {}
        self._wanted = anyio.Event()
        self._scan_at = 0.0
        self.housekeeper = Housekeeper(settings.directory, queue, state, clock=clock, wake=wake)

    async def run(self) -> None:
        """Keep the directory until cancelled; trouble of the directory is waited for, never raised."""
        failures = 0
        while True:
            began = self._clock()
            try:
                async with open_watch(self._settings.directory) as watch:
                    if self._state.watching.set(True) and failures:
                        log.recovered(f"the spool directory {self._settings.directory} is watched again")
                    await self._keep(watch)
                error = f"the spool directory {self._settings.directory} was removed, replaced or unmounted"
            except OSError as exc:
                error = f"the spool directory {self._settings.directory} cannot be watched: {os_reason(exc)}"
            except ExceptionGroup as exc:
                error = f"watching the spool directory {self._settings.directory} failed: internal error"
                logging.getLogger(log.LOGGER).exception("%s", error, exc_info=exc)
            self.housekeeper.retire()
            if self._state.watching.set(False, error):
                log.trouble(error)
            failures = 1 if self._clock() - began > TROUBLE_SECONDS else failures + 1
            await anyio.sleep(_REOPENING.bound_seconds(failures))

    async def look_at(self, names: Collection[str]) -> Listing:
        """See what is there now under these names; `take_look` tells the queue. Nothing when that cannot be seen."""
        try:
            return await in_thread(look_at_names, self._settings.directory, list(names))
        except OSError:
            self._scan_at = 0.0  # the scan says what is wrong
            self._wanted.set()
            return Listing()

    async def take_look(self, listing: Listing, arrivals: Mapping[str, Arrival]) -> None:
        """Tell the queue what was seen; at once, unless there is much of it."""
        for name in listing.gone:
            self._queue.vanish(name, self._clock())
        self._note_odd(self._warned | listing.odd)
        await self._enqueue(listing.files, arrivals)

    async def count_failed(self) -> None:
        """Files have come to `.failed/`, or were fetched back from there."""
        with suppress(OSError):
            shown = tuple(self._state.failures)
            self._state.keep_failures(await in_thread(look_for_failed, self._settings.directory), shown)

    def suspect(self, error: str) -> None:
        """A job could not write to the spool: find out more, now."""
        self.housekeeper.suspect(error)
        self._wanted.set()

    # Events

    async def _keep(self, watch: Watch) -> None:
        """Keep the queue true to this one directory, until it is lost."""
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
            await self._take(changes)

    async def _take(self, changes: Changes) -> None:
        now = self._clock()
        if changes.everything:
            self._scan_at = 0.0
        if changes.own_gone:
            self._scan_at = min(self._scan_at, self.housekeeper.leave())
        for name in changes.left:
            self._queue.vanish(name, now)
        if changes.left:
            self.housekeeper.file_left()
        if changes.left or changes.everything or changes.own_gone:
            self._wanted.set()
        mended = {
            name: known.arrival
            for name in changes.touched
            if (known := self._queue.get(name)) is not None and known.phase is Phase.DEFERRED
        }
        await self._look_at(mended | changes.arrived)
        await self._look_for_odd(changes.made - changes.arrived.keys())

    async def _look_at(self, arrivals: Mapping[str, Arrival]) -> None:
        if arrivals:
            await self.take_look(await self.look_at(arrivals), arrivals)

    async def _look_for_odd(self, names: AbstractSet[str]) -> None:
        """Tell of what was made in place and is no file. Files are heard of when they are complete."""
        if names:
            with suppress(OSError):
                listing = await in_thread(look_at_names, self._settings.directory, list(names))
                self._note_odd(self._warned | listing.odd)

    async def _enqueue(self, files: Mapping[str, Identity], arrivals: Mapping[str, Arrival]) -> None:
        """Tell the queue of files, in the order of their events, `arrivals`; what a scan has found by age."""
        in_order = list(files.items()) if arrivals else sorted(files.items(), key=lambda file: file[1].changed_ns)
        for number, (name, identity) in enumerate(in_order, start=1):
            known = self._queue.get(name)
            if known is not None and known.identity == identity and name not in arrivals:
                known.seen = self._clock()
            else:
                entry = Entry(
                    name=name,
                    parsed=known.parsed if known is not None else parse_name(name),
                    identity=identity,
                    arrival=arrivals.get(name, Arrival.FOUND),
                    given_back=self.housekeeper.was_given_back(name, identity),
                )
                self._queue.arrive(entry, self._clock(), event=name in arrivals)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        self._wake()

    def _note_odd(self, odd: dict[str, str]) -> None:
        for name, kind in odd.items():
            if self._warned.get(name) != kind:
                log.odd(name, kind)
        self._warned = odd
        self._state.odd = tuple(OddEntryShown(display(name), kind) for name, kind in sorted(odd.items()))

    # What comes around by time

    async def _tend(self) -> None:
        """Scan, keep our folder, clear up after the dead; return when the directory is not the watched one any more."""
        watched = await in_thread(_inode_of, self._settings.directory)
        while True:
            self._wanted = anyio.Event()
            if self._clock() >= self._scan_at and not await self._scan(watched):
                return
            await self.housekeeper.tend(rest_until=self._scan_at)
            if not self._queue.count(Phase.RUNNING):
                await self.housekeeper.close_retired()
            with anyio.move_on_after(max(0.0, min(self._scan_at, self.housekeeper.due) - self._clock())):
                await self._wanted.wait()

    async def _scan(self, watched: tuple[int, int] | None) -> bool:
        """Look at everything. False when another directory has come into the place of the one that is watched."""
        started, shown = self._clock(), tuple(self._state.failures)
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
        await self._take_listing(listing, started)
        if listing.failed is not None:
            self._state.keep_failures(listing.failed, shown)
        return True

    def _list(self) -> Listing:
        return list_directory(self._settings.directory, stale_after_seconds=self._settings.stale_after_seconds)

    async def _take_listing(self, listing: Listing, started: float) -> None:
        # A file that an event told of since the scan began is known better than the scan knows it.
        files = {
            name: identity
            for name, identity in listing.files.items()
            if (known := self._queue.get(name)) is None or known.seen < started
        }
        await self._enqueue(files, {})
        self._queue.keep_only(listing.files, self._clock(), seen_before=started)
        self._note_odd(listing.odd)
        self._state.stale_count = listing.stale
        self._state.scanned.set(True)
        self._state.last_scan = time.time()


def _inode_of(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
