"""What repositories a bundle is about: whoever reads it tells the other spoolers, in the file of its lock."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from registry_spooler.spool.entry import Entry
from registry_spooler.spool.identity import Identity
from registry_spooler.spool.lock import leave_note, read_note


def tell_claim(locks: Path, entry: Entry, content: Identity, repositories: Iterable[str]) -> None:
    """Say what the bundle is about, whose lock is held here; OSError when that cannot be done."""
    leave_note(locks, entry.lock_key, orjson.dumps([content.mark, sorted(repositories)]))


def hear_claim(locks: Path, entry: Entry) -> tuple[str, ...]:
    """What another spooler has said of the entry's content; nothing when it has not, or not all of it yet."""
    try:
        mark, repositories = orjson.loads(read_note(locks, entry.lock_key))
    except (ValueError, TypeError):
        return ()
    return tuple(repositories) if mark == entry.identity.mark else ()
