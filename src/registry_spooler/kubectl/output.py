"""What is printed: answers on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from typing import Any

import click
import orjson

PROGRAM = "kubectl spool"


def say(text: str) -> None:
    """A line of the answer."""
    click.echo(text)


def say_json(document: Any) -> None:
    """The answer, for a program."""
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def say_bytes(content: bytes) -> None:
    """The answer as it is."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def warn(text: str) -> None:
    """A line for people, beside the answer."""
    click.echo(f"{PROGRAM}: {text}", err=True)


def size_text(size: float) -> str:
    """A number of bytes for people: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration_text(seconds: float) -> str:
    """A time span for people: `3.2 s`, `4 min 10 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
