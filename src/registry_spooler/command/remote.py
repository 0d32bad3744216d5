"""The far end of an exec channel: what a command needs when its caller is beyond the cluster's API server.

Three things are different there. Nothing tells the command that the caller has gone, except that standard input
ends or that standard error takes no more: a thread watches both, and sends the program the signal that Ctrl-C would
have been. Proxies and the caller take silence for death: the same thread says every ten seconds that the command
lives. And version 4 of the channel cannot end standard input: the caller tells its length, and a pipe
in its place ends there.

Standard error then carries JSON, one object a line: `{"alive": true}`, `{"progress": {…}}`, `{"error": …}`.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from registry_spooler.errors import SpoolerError
from registry_spooler.progress import Progress

KEEP_ALIVE_SECONDS: Final = 10.0
PROGRESS_SECONDS: Final = 0.5
"""Between two progress lines, at least."""
_COPY_BYTES: Final = 1 << 20

_STDIN: Final = 0
_STDERR: Final = 2


@dataclass(slots=True)
class FarEnd:
    """The process as the far end of a channel. `attach` starts its threads; they end with the process."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _progress_due: float = 0.0

    def attach(self, stdin_bytes: int | None) -> None:
        """Begin: keep alive, and with a length give standard input an end there and watch what lies behind it.

        The signals that the threads send are for the whole process: handlers are the program's business.
        """
        threading.Thread(target=self._keep_alive, name="keep-alive", daemon=True).start()
        if stdin_bytes is None:
            return
        real = os.dup(_STDIN)
        reader, writer = os.pipe()
        os.dup2(reader, _STDIN)
        os.close(reader)
        threading.Thread(target=_relay, args=(real, writer, stdin_bytes), name="stdin", daemon=True).start()

    def progress(self, progress: Progress, *, final: bool = False) -> None:
        """Tell how far the work is; too early a call tells nothing."""
        now = time.monotonic()
        if now < self._progress_due and not final:
            return
        self._progress_due = now + PROGRESS_SECONDS
        fields = (
            "bytes_total",
            "bytes_done",
            "bytes_sent",
            "bytes_skipped",
            "blobs_uploaded",
            "blobs_existing",
            "blobs_mounted",
        )
        self.say({"progress": {name: getattr(progress, name) for name in fields}})

    def error(self, error: SpoolerError) -> None:
        """Tell why the work failed: the last line."""
        self.say(
            {
                "error": str(error),
                "kind": type(error).__name__,
                "temporary": error.transient,
                "detail": error.detail,
            }
        )

    def say(self, document: dict[str, Any]) -> None:
        """Write one line on standard error; quietly nothing when nobody reads it any more."""
        line = memoryview(orjson.dumps(document) + b"\n")
        with self._lock:
            try:
                while line:
                    line = line[os.write(_STDERR, line) :]
            except OSError:
                _caller_has_gone()

    def _keep_alive(self) -> None:
        while True:
            time.sleep(KEEP_ALIVE_SECONDS)
            self.say({"alive": True})


def _relay(real: int, writer: int, length: int) -> None:
    """Copy `length` bytes of the real standard input, end its stand-in, then wait for the real one's end."""
    left = length
    while left:
        piece = os.read(real, min(left, _COPY_BYTES))
        if not piece:
            _caller_has_gone()  # before the writer is closed: nobody may take this for the end of the input
            return
        left -= len(piece)
        if not _write_all(writer, piece):
            break  # the command wants no more
    os.close(writer)
    _wait_for_end(real)
    _caller_has_gone()


def _write_all(writer: int, piece: bytes) -> bool:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(writer, view) :]
    except BrokenPipeError:
        return False
    return True


def _wait_for_end(real: int) -> None:
    poll = select.poll()
    poll.register(real, select.POLLIN)
    while True:
        poll.poll()
        if not os.read(real, _COPY_BYTES):
            return


def _caller_has_gone() -> None:
    """End the program as Ctrl-C would: it cancels what it does, and leaves nothing behind."""
    os.kill(os.getpid(), signal.SIGTERM)
