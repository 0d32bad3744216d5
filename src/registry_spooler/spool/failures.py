"""Failed files: `.failed/NAME`, every byte kept, and beside it `.failed/NAME.error.json`, which says why.

Nothing in `.failed/` is ever written over. A NAME that is taken is renamed, with its record, to the first free one of
NAME.1, NAME.2, …; the highest number is the latest. Only the record of an earlier failure of the same name is replaced.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from registry_spooler.moment import rfc3339
from registry_spooler.spool.layout import sync_directory
from registry_spooler.spool.names import ERROR, derived_name, record_text
from registry_spooler.spool.rename import rename_noreplace
from registry_spooler.spool.room import Room

_FIELDS: Final = frozenset({"file", "action", "reference", "error", "detail", "attempts", "time"})
_RECORD_MAX_BYTES: Final = 1 << 20


def failure_document(
    name: str, action: str, reference: str | None, *, error: str, detail: str, attempts: int, time: float
) -> dict[str, Any]:
    """The record's content."""
    return {
        "file": record_text(name),
        "action": action,
        "reference": reference,
        "error": record_text(error),
        "detail": record_text(detail),
        "attempts": attempts,
        "time": rfc3339(time),
    }


def error_path(folder: Path, name: str) -> Path:
    """Where the record for a failed file of that name is."""
    return folder / derived_name(name, ERROR)


def store_failure(room: Room, aside: Path, document: dict[str, Any]) -> None:
    """Put a file that was set aside, and the record, into `.failed/`; blocks.

    The record comes first: a file in `.failed/` is never there without its reason.
    """
    folder, name = room.layout.failed, aside.name
    _make_way(folder, name)
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    room.write(error_path(folder, name), content)
    rename_noreplace(aside, folder / name)
    sync_directory(folder)


def clear_error(folder: Path, name: str) -> bool:
    """Remove the record of a failure that a retry has made good; blocks. Was there one?"""
    record = error_path(folder, name)
    if not os.path.lexists(record) or os.path.lexists(folder / name) or not _is_record(record, name):
        return False
    record.unlink(missing_ok=True)
    return True


def failed_files(folder: Path) -> list[str]:
    """The names of the files in `.failed/`, records left out; blocks."""
    names = set(os.listdir(folder))
    records = {derived_name(name, ERROR) for name in names} & names
    # A record whose file was moved away for a retry has nothing to stand beside, but is none the less a record.
    return sorted(name for name in names - records if not (name.endswith(ERROR) and _read(folder / name)))


def count_failed(folder: Path) -> int:
    """How many they are; blocks."""
    return len(failed_files(folder))


def read_failure(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a file in `.failed/`; None when there is none, or one that is not ours. Blocks."""
    return _read(error_path(folder, name))


def _make_way(folder: Path, name: str) -> None:
    """Rename what is called NAME, and its record; and what is called like NAME's record and is none."""
    target, record = folder / name, error_path(folder, name)
    if os.path.lexists(target):
        number = _free_number(folder, name)
        older = derived_name(name, f".{number}")
        rename_noreplace(target, folder / older)
        with suppress(FileNotFoundError):
            rename_noreplace(record, error_path(folder, older))
    elif os.path.lexists(record) and not _is_record(record, name):
        rename_noreplace(record, folder / derived_name(record.name, f".{_free_number(folder, record.name)}"))


def _free_number(folder: Path, name: str) -> int:
    for number in itertools.count(1):
        older = derived_name(name, f".{number}")
        if not os.path.lexists(folder / older) and not os.path.lexists(error_path(folder, older)):
            return number
    raise AssertionError("count ends")


def _is_record(path: Path, name: str) -> bool:
    """Is it a record of ours for that name, and not somebody's file that is called so?"""
    document = _read(path)
    return document is not None and document["file"] == record_text(name)


def _read(path: Path) -> dict[str, Any] | None:
    """A record of ours; None for everything else that may be called so."""
    try:
        if path.stat(follow_symlinks=False).st_size > _RECORD_MAX_BYTES:
            return None
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return document if isinstance(document, dict) and document.keys() == _FIELDS else None
