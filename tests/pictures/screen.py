"""A terminal in memory: a program runs in it as in a window, and what it then shows is drawn as SVG.

pyte obeys the control sequences as an xterm does; rich draws the characters that are left on the screen.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from itertools import groupby
from pathlib import Path

import pyte
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

LINES_MAX = 100
TYPED = "\x1b[1;32m$\x1b[0m \x1b[1m{}\x1b[0m\r\n"
FONTS = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)
"""What rich would have the reader's browser ask another host for, and its advertisement."""


class Screen:
    """What one window has shown so far."""

    def __init__(self, columns: int) -> None:
        self._screen = pyte.Screen(columns, LINES_MAX)
        self._stream = pyte.ByteStream(self._screen)
        self.columns = columns

    def write(self, output: bytes) -> None:
        """Show what a program writes."""
        self._stream.feed(output)

    async def run(self, command: str, environment: Mapping[str, str], folder: Path) -> int:
        """Type a command, run it on a terminal as wide as the window, and show what it prints; its exit code."""
        self.write(TYPED.format(command).encode())
        ours, theirs = pty.openpty()
        try:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES_MAX, self.columns, 0, 0))
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", command),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env={**environment, "TERM": "xterm-256color"},
                cwd=folder,
            )
        finally:
            os.close(theirs)
        try:
            while piece := await asyncio.to_thread(_read, ours):
                self.write(piece)
        finally:
            os.close(ours)
        return await process.wait()

    @property
    def lines(self) -> list[str]:
        """What stands there, without what is empty at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    def svg(self, title: str) -> str:
        """Draw the window."""
        console = Console(record=True, width=self.columns, file=StringIO(), color_system="truecolor")
        for line in range(len(self.lines)):
            cells = [self._screen.buffer[line][column] for column in range(self.columns)]
            runs = [("".join(cell.data for cell in run), style) for style, run in groupby(cells, _style)]
            text = Text.assemble(*runs)
            text.rstrip()
            console.print(text, overflow="crop", no_wrap=True)
        return FONTS.sub("", console.export_svg(title=title, unique_id="terminal"))


def _read(descriptor: int) -> bytes:
    with suppress(OSError):  # all who could write to the terminal have ended
        return os.read(descriptor, 1 << 16)
    return b""


def _style(cell: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(cell.fg),
        bgcolor=_colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def _colour(name: str) -> Color | None:
    """The colour by its name in pyte, which says brown for yellow, or by its six digits."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return Color.parse(f"#{name}")
    return Color.parse(re.sub("^bright(?=[a-z])", "bright_", name.replace("brown", "yellow")))
