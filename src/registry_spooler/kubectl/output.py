"""What is printed: answers on standard output, everything else on standard error.

Much of it was said by a registry or a pod: whatever that is, no control character of theirs reaches a terminal.
"""

from __future__ import annotations

import sys
from typing import Any

import click
import orjson

from registry_spooler.text import printable, terminal_safe_json

PROGRAM = "kubectl spool"

DONE, FAILED, USAGE, NOT_FOUND, NOT_ALLOWED = range(5)
"""Exit codes, those of `registry-client` too."""


def say(*columns: str) -> None:
    """A line of the answer; tabs between its columns."""
    click.echo("\t".join(map(printable, columns)))


def say_json(document: Any) -> None:
    """The answer, for a program."""
    click.echo(terminal_safe_json(orjson.dumps(document, option=orjson.OPT_INDENT_2)).decode())


def say_bytes(content: bytes) -> None:
    """The answer as it is."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def warn(text: str) -> None:
    """A line for people, beside the answer."""
    click.echo(f"{PROGRAM}: {printable(text)}", err=True)
