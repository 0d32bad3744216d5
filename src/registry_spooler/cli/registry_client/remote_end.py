"""The remote end of an exec channel: what a command needs when its caller is beyond the cluster's API server.

Four things are different there. Nothing tells the command that the caller has gone, except that standard input
ends or that standard error takes no more: a thread watches both, and sends the program the signal that Ctrl-C would
have been. Proxies and the caller take silence for death: the same thread says every ten seconds that the command
lives. Standard input cannot be ended without ending all of that: the caller tells its length, and a pipe in its
place ends there. And what the caller hears of the command's end may be wrong or missing, so the command says itself
that it is through, how much it wrote and how it ended; what is still coming in is read until then, since a runtime
with a full channel delivers nothing.

Standard error then carries the lines of `kubernetes/wire.py`.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from registry_spooler.kubernetes.wire import ALIVE, LastWord, RemoteFailure, encode_line, progress_line
from registry_spooler.progress import Progress

KEEP_ALIVE_SECONDS: Final = 10.0
PROGRESS_SECONDS: Final = 0.5
"""Between two progress lines, at least."""
DRAIN_SECONDS: Final = 10.0
"""For what the caller sent before it heard that nobody reads it."""
QUIET_SECONDS: Final = 0.5
"""Nothing came for so long: it has stopped sending."""
_COPY_BYTES: Final = 1 << 20

_STDIN: Final = 0
_STDERR: Final = 2


@dataclass(slots=True)
class RemoteSession:
    """The process as the remote end of an exec. `attach` starts its threads; they end with the process."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _progress_due: float = 0.0
    _relay: _Relay | None = None

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
        self._relay = _Relay(real, writer, stdin_bytes)
        threading.Thread(target=self._relay.run, name="stdin", daemon=True).start()

    def progress(self, progress: Progress, *, final: bool = False) -> None:
        """Tell how far the work is; too early a call tells nothing."""
        now = time.monotonic()
        if now < self._progress_due and not final:
            return
        self._progress_due = now + PROGRESS_SECONDS
        self.say(progress_line(progress))

    def error(self, failure: RemoteFailure) -> None:
        """Tell why the work failed, and that is the end of it: the caller need not wait for the exit code."""
        self.say(failure.to_json())

    def conclude(self, code: int, stdout_bytes: int) -> None:
        """Say the last word, and let what still comes in pass by. Standard output has been flushed."""
        self.say(LastWord(code=code, stdout_bytes=stdout_bytes).to_json())
        if self._relay is not None:
            self._relay.drain()

    def say(self, document: dict[str, Any]) -> None:
        """Write one line on standard error; quietly nothing when nobody reads it any more."""
        line = memoryview(encode_line(document))
        with self._lock:
            try:
                while line:
                    line = line[os.write(_STDERR, line) :]
            except OSError:
                _caller_has_gone()

    def _keep_alive(self) -> None:
        while True:
            time.sleep(KEEP_ALIVE_SECONDS)
            self.say(ALIVE)


@dataclass(slots=True)
class _Relay:
    """Gives standard input an end: copies `left` bytes of the real one to its stand-in, and waits for the caller."""

    real: int
    writer: int
    left: int
    _through: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Copy, end the stand-in, then wait for the real one's end, which is the caller's."""
        is_wanted = True
        while self.left:
            piece = os.read(self.real, min(self.left, _COPY_BYTES))
            if not piece:
                _caller_has_gone()  # before the writer is closed: nobody may take this for the end of the input
                return
            self.left -= len(piece)
            is_wanted = is_wanted and _write_all(self.writer, piece)
        os.close(self.writer)
        self._through.set()
        _wait_for_end(self.real)
        _caller_has_gone()

    def drain(self) -> None:
        """Nobody reads the stand-in any more: wait until all has come, or nothing comes any more."""
        os.close(_STDIN)
        deadline = time.monotonic() + DRAIN_SECONDS
        left = -1
        while left != self.left and time.monotonic() < deadline:
            left = self.left
            if self._through.wait(QUIET_SECONDS):
                return


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
