"""File names as they are shown, and the names of the records that belong to them.

A spool file may be called anything that the file system takes: bytes that are no UTF-8, control characters,
255 bytes of them. Inside the program a name is the `str` that `os.fsdecode` makes of it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from registry_spooler.text import encodable, printable

NAME_MAX_BYTES: Final = 255
"""What every Linux file system takes; a longer name is cut, see `derived_name`."""

RECEIPT: Final = ".json"
ERROR: Final = ".error.json"


def record_text(name: str) -> str:
    r"""The name as a record holds it: Unicode as it is, bytes that are no UTF-8 as `\xNN`."""
    return encodable(name)


def display(name: str) -> str:
    """The name as people see it, in logs, on terminals and pages: no control, format or line-end characters."""
    return printable(name)


def derived_name(name: str, extension: str) -> str:
    """`name` + `extension`; where that is too long for a file name, the name is cut and marked with its own hash.

    The cut is made so that different names never get the same derived name: `START~HASH.error.json`.
    """
    raw, tail = _encode(name), _encode(extension)
    if len(raw) + len(tail) <= NAME_MAX_BYTES:
        return name + extension
    mark = f"~{hashlib.sha256(raw).hexdigest()[:20]}".encode()
    start = raw[: NAME_MAX_BYTES - len(mark) - len(tail)]
    # A character that the cut goes through is left out: the result of a clean name stays clean.
    while start and not _is_boundary(raw, len(start)):
        start = start[:-1]
    return (start + mark + tail).decode("utf-8", "surrogateescape")


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _is_boundary(raw: bytes, index: int) -> bool:
    return raw[index] & 0xC0 != 0x80
