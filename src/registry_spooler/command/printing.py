"""What the program says on standard output and standard error.

Names come from registries and archives, so whatever they hold, no control character of theirs reaches a terminal.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import orjson

from registry_spooler.pull.errors import OutputClosed, OutputFailed
from registry_spooler.text import printable, terminal_safe_json

_written_bytes = 0


def written_bytes() -> int:
    """How much has gone to standard output so far, here and by whoever told `count`."""
    return _written_bytes


def count(size: int) -> None:
    """Take note of bytes that somebody else wrote to standard output."""
    global _written_bytes
    _written_bytes += size


def say(line: str) -> None:
    """One line on standard output."""
    _write(printable(line).encode() + b"\n")


def say_json(document: Any) -> None:
    """A JSON document on standard output: one line for a program, indented for a person."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    _write(terminal_safe_json(orjson.dumps(document, option=option | orjson.OPT_APPEND_NEWLINE)))


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
        count(len(content))
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
