"""What the program says on standard output and standard error.

Names come from registries and archives, so whatever they hold, no control character of theirs reaches a terminal.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import orjson

from registry_spooler.pull.errors import OutputClosed, OutputFailed

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def printable(text: str) -> str:
    r"""The text with its control, format and line-end characters as `\x1b`, `\u202e` and so on."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def size_text(size_bytes: float) -> str:
    """A size for people: `12.3 MiB`."""
    unit = 0
    while size_bytes >= 1024 and unit < len(_UNITS) - 1:
        size_bytes /= 1024
        unit += 1
    return f"{size_bytes:.0f} {_UNITS[0]}" if unit == 0 else f"{size_bytes:.1f} {_UNITS[unit]}"


def say(line: str) -> None:
    """One line on standard output."""
    _write(printable(line).encode() + b"\n")


def say_json(document: Any) -> None:
    """A JSON document on standard output: one line for a program, indented for a person."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    _write(orjson.dumps(document, option=option | orjson.OPT_APPEND_NEWLINE))


def say_bytes(content: bytes) -> None:
    """Bytes on standard output as they are."""
    _write(content)


def warn(line: str) -> None:
    """One line on standard error; nothing when nobody reads it."""
    try:
        sys.stderr.write(f"registry-client: {printable(line)}\n")
        sys.stderr.flush()
    except OSError:
        pass


def flush() -> None:
    """Write out what is buffered; OutputClosed or OutputFailed when that cannot be."""
    _translated(b"")


def _write(content: bytes) -> None:
    _translated(content)


def _translated(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        if not content or sys.stdout.isatty():
            sys.stdout.buffer.flush()
    except BrokenPipeError as exc:
        _give_up()
        raise OutputClosed from exc
    except OSError as exc:
        _give_up()
        raise OutputFailed("standard output", exc.strerror or str(exc)) from exc


def _give_up() -> None:
    """Let what is still buffered go nowhere: the interpreter would try to write it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
