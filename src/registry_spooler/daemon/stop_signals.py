"""SIGTERM and SIGINT, from the first line of the program to its last.

While the program starts they end it at once: nothing has been begun then, and an exception in the middle of an import
would reach extension modules that do not expect one (orjson crashes). While it runs they are handed to the event loop.
What comes after that is taken note of and changes nothing. Without a handler the kernel would kill the process, or
ignore the signal where it is the first one of a container.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """The handler of both; one for the whole process. `notify` is told of each, once it is set."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._is_starting = True
        self._notify: Callable[[], None] = lambda: None

    def install(self) -> None:
        """Handle them from here on; to be called in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._take)

    def started(self) -> None:
        """The program has started: signals no longer end it at once."""
        self._is_starting = False
        self.end_if_asked()

    def end_if_asked(self) -> None:
        """End the program, with exit code 0, when a signal has come already."""
        if self.received:
            raise SystemExit(0)

    def tell(self, notify: Callable[[], None]) -> None:
        """Call this at each signal; once at once, when some have come already. It runs between any two instructions."""
        self._notify = notify
        if self.received:
            notify()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
        if self._is_starting:
            os._exit(0)
        self._notify()


STOP_SIGNALS: Final = StopSignals()
