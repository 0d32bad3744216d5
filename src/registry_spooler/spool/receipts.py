"""Receipts: `.receipts/NAME.json` says what was done with NAME. Only the newest are kept."""

from __future__ import annotations

import heapq
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson

from registry_spooler.folder import Folder
from registry_spooler.moment import rfc3339
from registry_spooler.result import ImageResult
from registry_spooler.spool.names import RECEIPT, derived_name, record_text
from registry_spooler.spool.room import Room


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
    """The receipt's content; a bundle's has one such record for each of its images."""
    head = {"file": record_text(name), "action": action}
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
    """What the receipt for a file of that name is called."""
    return derived_name(name, RECEIPT)


def write_receipt(room: Room, name: str, document: dict[str, Any]) -> None:
    """Write it so that it is on the disk when this returns; blocks."""
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    room.write(room.layout.receipts, receipt_name(name), content)


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
