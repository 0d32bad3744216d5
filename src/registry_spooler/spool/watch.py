"""The watch on the spool directory: inotify, read for as long as the directory is the one that was watched.

What is read is gathered by name, so that a burst of events costs one look per file. An event only says "look at this
name"; what is there is found out by looking. When events may have been lost (the queue of the kernel ran over) the
answer is `everything`; when the watch itself is lost (the directory was removed, renamed or unmounted) it is
`lost`, and the caller watches anew. https://man7.org/linux/man-pages/man7/inotify.7.html
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
from asyncinotify import Event, Inotify, Mask

from registry_spooler.filename import is_ignored
from registry_spooler.spool.entry import Arrival
from registry_spooler.spool.layout import OWN
from registry_spooler.threads import in_thread

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
