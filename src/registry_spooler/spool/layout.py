"""The spool directory and the folders in it that are the spooler's own, opened once.

All work in them goes by their descriptors: whatever somebody makes of their names meanwhile, nothing outside of them is
touched. A link, or anything else that is no directory, in the place of one is refused.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry_spooler.folder import Folder

WORK: Final = ".work"
RECEIPTS: Final = ".receipts"
FAILED: Final = ".failed"
LOCKS: Final = ".locks"
OWN: Final = frozenset({WORK, RECEIPTS, FAILED, LOCKS})


@dataclass(frozen=True, slots=True)
class Layout:
    """One spool directory; made by `open_layout`."""

    directory: Folder
    receipts: Folder
    """What was done: NAME.json."""
    failed: Folder
    """What cannot be done: NAME and NAME.error.json."""
    locks: Folder
    """Which repositories are worked on, and by whom."""
    work: Folder
    """Each running spooler's temporary things, in a folder of its own."""

    def check(self) -> None:
        """Raise OSError (ESTALE) when a name leads to another folder than the one that is open, or to none."""
        if not self.directory.is_at(self.directory.path):
            raise OSError(errno.ESTALE, f"{self.directory.path} was removed, or is another directory now")
        for folder in (self.receipts, self.failed, self.locks, self.work):
            if not self.directory.holds(folder.path.name, folder.fd):
                raise OSError(errno.ESTALE, f"{folder.path} was removed, or something else has been put in its place")

    def close(self) -> None:
        """Close all of them; to be called when nothing uses them any more."""
        for folder in (self.receipts, self.failed, self.locks, self.work, self.directory):
            folder.close()


def open_layout(path: Path) -> Layout:
    """Open the directory and its folders, and make those that are missing; OSError when that cannot be done."""
    with ExitStack() as opened:
        directory = opened.enter_context(Folder.open(path))
        folders = [
            opened.enter_context(directory.subfolder(name, make=True)) for name in (RECEIPTS, FAILED, LOCKS, WORK)
        ]
        opened.pop_all()
    return Layout(directory, *folders)


def open_own(path: Path, name: str) -> Folder | None:
    """Open one of the folders for a look at it; None when there is none. NotAFolder when it is something else."""
    with suppress(FileNotFoundError), Folder.open(path) as directory:
        return directory.subfolder(name)
    return None


def write_durably(content: bytes, *, work: Folder, temporary: str, target: Folder, name: str) -> None:
    """Write a file so that `name` is at every instant its old self or the new one, and on the disk on return."""
    work.create(temporary, content, durable=True)
    try:
        work.rename(temporary, target, name)
    except OSError:
        work.remove(temporary, missing_ok=True)
        raise
    target.sync()
