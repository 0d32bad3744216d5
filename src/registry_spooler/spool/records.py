"""Receipts and failures: what was done with each file, on the disk.

Nothing in `.failed/` is ever written over. A NAME that is taken is renamed, with its record, to the first free one of
NAME.1, NAME.2, …; the highest number is the latest. Only the record of an earlier failure of the same name is replaced.
"""

from __future__ import annotations

import heapq
import itertools
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from registry_spooler.folder import Folder
from registry_spooler.progress import ImageResult
from registry_spooler.spool.directory.files import FAILED, open_own, rename_noreplace
from registry_spooler.spool.directory.workdir import Aside, WorkDir
from registry_spooler.spool.filename import ERROR, RECEIPT, derived_name
from registry_spooler.text import encodable, rfc3339


def receipt_document(
    name: str,
    action: str,
    results: Sequence[ImageResult],
    *,
    is_bundle: bool,
    attempts: int,
    started: float,
    finished: float,
) -> dict[str, Any]:
    """Return the receipt's content; a bundle's has one such record for each of its images."""
    head = {"file": encodable(name), "action": action}
    tail = {
        "attempts": attempts,
        "started": rfc3339(started),
        "finished": rfc3339(finished),
        "seconds": round(finished - started, 3),
    }
    images = [head | result.to_json() | tail for result in results]
    if images and not is_bundle:
        return images[0]
    left_out = [entry.to_json() for result in results for entry in result.left_out]
    return head | {"images": images, "left_out": left_out} | tail


def receipt_name(name: str) -> str:
    """Return the name of the receipt for a file of that name."""
    return derived_name(name, RECEIPT)


def write_receipt(workdir: WorkDir, name: str, document: dict[str, Any]) -> None:
    """Write it so that it is on the disk when this returns; blocks."""
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    workdir.write(workdir.layout.receipts, receipt_name(name), content)


def trim_receipts(folder: Folder, keep: int) -> None:
    """Remove all but the newest `keep` receipts; blocks. Several spoolers may do so at once."""
    names = [name for name in folder.names() if name.endswith(RECEIPT)]
    if len(names) <= keep:
        return
    ages = []
    for name in names:
        with suppress(FileNotFoundError):  # another spooler was faster
            status = folder.status(name)
            if stat.S_ISREG(status.st_mode):
                ages.append((status.st_mtime_ns, name))
    for _, name in heapq.nsmallest(len(ages) - keep, ages):
        folder.remove(name, missing_ok=True)


_FIELDS: Final = frozenset({"file", "action", "reference", "error", "detail", "attempts", "time"})
_RECORD_MAX_BYTES: Final = 1 << 20


def failure_document(
    name: str, action: str, reference: str | None, *, error: str, detail: str, attempts: int, time: float
) -> dict[str, Any]:
    """Return the record's content."""
    return {
        "file": encodable(name),
        "action": action,
        "reference": reference,
        "error": encodable(error),
        "detail": encodable(detail),
        "attempts": attempts,
        "time": rfc3339(time),
    }


def error_name(name: str) -> str:
    """Return the name of the record for a failed file of that name."""
    return derived_name(name, ERROR)


def store_failure(workdir: WorkDir, aside: Aside, document: dict[str, Any]) -> None:
    """Put a file that was set aside, and the record, into `.failed/`; blocks.

    The record comes first: a file in `.failed/` is never there without its reason.
    """
    folder, name = workdir.layout.failed, aside.name
    _make_way(folder, name)
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    workdir.write(folder, error_name(name), content)
    rename_noreplace(aside.folder, name, folder, name)
    folder.sync()


def clear_error(folder: Folder, name: str) -> bool:
    """Remove the record of a failure that a retry has made good; return whether there was one. Blocks."""
    record = error_name(name)
    if not folder.has(record) or folder.has(name) or not _is_record(folder, record, name):
        return False
    folder.remove(record, missing_ok=True)
    return True


def failed_files(folder: Folder) -> list[str]:
    """Return the names of the files in `.failed/`, records left out; blocks."""
    names = set(folder.names())
    records = {derived_name(name, ERROR) for name in names} & names
    # A record whose file was moved away for a retry has nothing to stand beside, but is none the less a record.
    return sorted(name for name in names - records if not (name.endswith(ERROR) and _read(folder, name)))


def look_for_failed(directory: Path) -> list[str]:
    """Return the names of the files in a spool directory's `.failed/`; blocks. OSError when that cannot be read."""
    folder = open_own(directory, FAILED)
    if folder is None:
        return []
    with folder:
        return failed_files(folder)


def read_failure(folder: Folder, name: str) -> dict[str, Any] | None:
    """Return the record of a file in `.failed/`; None when there is none, or one that is not ours. Blocks."""
    return _read(folder, error_name(name))


def _make_way(folder: Folder, name: str) -> None:
    """Rename what is called NAME, and its record; and what is called like NAME's record and is none."""
    record = error_name(name)
    if folder.has(name):
        older = derived_name(name, f".{_free_number(folder, name)}")
        rename_noreplace(folder, name, folder, older)
        with suppress(FileNotFoundError):
            rename_noreplace(folder, record, folder, error_name(older))
    elif folder.has(record) and not _is_record(folder, record, name):
        rename_noreplace(folder, record, folder, derived_name(record, f".{_free_number(folder, record)}"))


def _free_number(folder: Folder, name: str) -> int:
    for number in itertools.count(1):
        older = derived_name(name, f".{number}")
        if not folder.has(older) and not folder.has(error_name(older)):
            return number
    raise AssertionError("count ends")


def _is_record(folder: Folder, record: str, name: str) -> bool:
    """Return whether it is a record of ours for that name, and not somebody's file of that name."""
    document = _read(folder, record)
    return document is not None and document["file"] == encodable(name)


def _read(folder: Folder, name: str) -> dict[str, Any] | None:
    """Return a record of ours; None for everything else of that name."""
    try:
        document = orjson.loads(folder.read(name, _RECORD_MAX_BYTES))
    except (OSError, orjson.JSONDecodeError):
        return None
    return document if isinstance(document, dict) and document.keys() == _FIELDS else None
