"""A full look at the spool directory: what there is to do, what is odd, what was forgotten."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from registry_spooler.filename import is_ignored
from registry_spooler.folder import Folder
from registry_spooler.spool.failures import look_for_failed
from registry_spooler.spool.identity import Identity, OddEntry, kind_of, look_at


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
