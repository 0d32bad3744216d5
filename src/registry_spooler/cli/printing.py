"""What the two client programs print: answers on standard output, warnings on standard error.

Much of it comes from registries, pods and archives: whatever that is, no control character of theirs reaches a
terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import orjson

from registry_spooler.pull.output import OutputClosed, OutputFailed
from registry_spooler.text import printable, terminal_safe_json

program = "registry-client"
"""The name at the head of a warning; the program sets it when it starts."""

_answers: ContextVar[Callable[[bytes], None] | None] = ContextVar("answers", default=None)


@contextmanager
def answering(write: Callable[[bytes], None]) -> Generator[None]:
    """Give answers to `write` instead of standard output while the block runs, in what it starts as well."""
    token = _answers.set(write)
    try:
        yield
    finally:
        _answers.reset(token)


def say(*columns: str) -> None:
    """Print a line of the answer, with tabs between its columns."""
    say_bytes("\t".join(map(printable, columns)).encode() + b"\n")


def say_json(document: Any) -> None:
    """Print a JSON document: indented for a person, on one line for a program."""
    option = orjson.OPT_INDENT_2 if _answers.get() is None and sys.stdout.isatty() else 0
    say_bytes(terminal_safe_json(orjson.dumps(document, option=option | orjson.OPT_APPEND_NEWLINE)))


def say_bytes(content: bytes) -> None:
    """Write bytes to standard output as they are. OutputClosed when nobody reads them, OutputFailed."""
    if (write := _answers.get()) is not None:
        write(content)
        return
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError as exc:
        _discard_the_rest()
        raise OutputClosed from exc
    except OSError as exc:
        _discard_the_rest()
        raise OutputFailed("standard output", exc.strerror or str(exc)) from exc


def warn(line: str) -> None:
    """Print a line on standard error; nothing when nobody reads it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{program}: {printable(line)}\n")
        sys.stderr.flush()


def _discard_the_rest() -> None:
    """Let what is still buffered go nowhere: the interpreter would try to write it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
