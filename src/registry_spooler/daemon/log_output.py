"""The log: lines for people, or JSON for machines, written by a thread of its own.

A log that cannot be written (a full pipe, a slow disk) must not hold up the event loop, so records go through
a queue. What users put into names must not reach a terminal as control characters.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from pythonjsonlogger.orjson import OrjsonFormatter

_project: Final = logging.getLogger("registry_spooler")
_spool: Final = logging.getLogger("registry_spooler.spool")
_COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
_RESET: Final = "\x1b[0m"
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(0x80, 0xA0))}
_QUEUE_RECORDS: Final = 10_000
"""Beyond this many unwritten records new ones are dropped: memory is bounded, the work goes on."""


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123+0000 INFO message`, with a colour by level when asked for."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """One line a record; a traceback follows on lines of its own, for debugging only."""
        message = record.getMessage().translate(_CONTROLS).encode("utf-8", "backslashreplace").decode()
        line = f"{self.formatTime(record)} {record.levelname:<7} {message}"
        if self._colours and record.levelname in _COLOURS:
            line = f"{_COLOURS[record.levelname]}{line}{_RESET}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The listener lives in this process: nothing has to be made fit for pickling.
        return record


def set_levels(verbose: int) -> None:
    """`-v`: the spool tells every attempt and every deferral, news or not; `-vv`: the rest, request by request, too."""
    _project.setLevel(logging.DEBUG if verbose >= 2 else logging.INFO)
    _spool.setLevel(logging.DEBUG if verbose else logging.NOTSET)


@contextmanager
def logging_to(stream: IO[str], *, verbose: int, log_format: str, colorize: str) -> Iterator[None]:
    """Send this project's log to `stream` until the block ends and all is written.

    `colorize` is `true` (when it is a terminal), `false` or `force`.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(stream, log_format, colorize))
    records: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_RECORDS)
    listener = logging.handlers.QueueListener(records, handler)
    set_levels(verbose)
    _project.propagate = False
    feeder = _BoundedQueueHandler(records)
    _project.addHandler(feeder)
    listener.start()
    try:
        yield
    finally:
        _project.removeHandler(feeder)
        listener.stop()


def _formatter(stream: IO[str], log_format: str, colorize: str) -> logging.Formatter:
    if log_format == "json":
        return OrjsonFormatter(
            "%(levelname)s%(name)s%(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
        )
    return TextFormatter(colours=colorize == "force" or (colorize == "true" and stream.isatty()))
