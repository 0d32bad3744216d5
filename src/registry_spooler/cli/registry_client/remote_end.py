"""The remote end of an exec channel: what a command needs when its caller is beyond the cluster's API server.

A session is the three descriptors of one exec. It belongs to a process of its own, or is one of many in the daemon, to
which that process has handed its descriptors (`handover.py`). Four things are different from a command in a shell:

Nothing tells that the caller has gone, except that standard input ends or that standard error takes no more. Proxies
and the caller take silence for death, so a line every ten seconds says that the command lives. Standard input cannot be
ended without ending all of that: the caller tells its length, and `input` ends there. And what the caller hears of the
command's end may be wrong or missing, so the command says itself that it is through, how much it wrote and how it
ended; what is still coming in is read until then, since a runtime with a full channel delivers nothing.

Standard error carries the lines of `kubernetes/wire.py`. No descriptor is made non-blocking, since others may share it:
each is asked whether it is ready, and given no more than it then takes.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from registry_spooler.cli.process import run
from registry_spooler.kubernetes.wire import ALIVE, LastWord, RemoteFailure, decode_request, encode_line, progress_line
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.pull.output import Output, OutputClosed, enlarge_pipe

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from registry_spooler.cli.registry_options import RegistrySettings
    from registry_spooler.delta.base import LayerStep
    from registry_spooler.push.delta_bases import SignatureStore
    from registry_spooler.push.layer_cache import KnownBlobs
    from registry_spooler.registry.registry_client import RegistryClient

KEEP_ALIVE_SECONDS: Final = 10.0
PROGRESS_SECONDS: Final = 0.5
"""Between two progress lines, at least."""
DRAIN_SECONDS: Final = 10.0
"""For what the caller sent before it heard that nobody reads it."""
QUIET_SECONDS: Final = 0.5
"""Nothing came for so long: it has stopped sending."""
_DRAIN_BYTES: Final = 1 << 20
_LENGTH_BYTES: Final = 4
REQUEST_BYTES_MAX: Final = 1 << 20
"""A command of a conversation, without its input."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SharedRegistry:
    """The daemon's open client, for commands that are about the same registry in the same way."""

    settings: RegistrySettings
    client: RegistryClient
    known: KnownBlobs
    signatures: SignatureStore


class Outlet:
    """The writing end of a pipe, for several threads. The descriptor stays the caller's."""

    patience_seconds: float | None = None
    """How long `flush` waits for the reader to take something; None: for ever."""

    def __init__(self, fd: int) -> None:
        self.written_bytes = 0
        """What was given to it."""
        self._fd = fd
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._is_stopped = False
        self._wake_read, self._wake_write = os.pipe()

    @property
    def is_behind(self) -> bool:
        """Return whether the reader has yet to take something."""
        return bool(self._pending)

    def put(self, content: Buffer) -> None:
        """Write what the pipe takes now, and keep the rest; never waits. OSError when the reader has gone."""
        with self._lock:
            self._pending += content
            self.written_bytes += memoryview(content).nbytes
            self._move()

    def flush(self) -> None:
        """Write what was kept, and wait for the reader to take it. OSError; OutputClosed after `stop`, or too long."""
        patience = self.patience_seconds
        while self._pending:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.register(self._wake_read, select.POLLIN)
            if not poll.poll(patience * 1000 if patience is not None else None) or self._is_stopped:
                raise OutputClosed
            with self._lock:
                self._move()

    def stop(self) -> None:
        """Let nobody wait for the reader any more."""
        if not self._is_stopped:
            self._is_stopped = True
            os.write(self._wake_write, b"\0")

    def close(self) -> None:
        """Give back what belongs to this object."""
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _move(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._pending and poll.poll(0):
            # A pipe that is ready has room for so much; nobody can know of more.
            written = os.write(self._fd, self._pending[: select.PIPE_BUF])
            del self._pending[:written]


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    """Return so many bytes; fewer at the end of the input."""
    content = b""
    while len(content) < count and (piece := read(count - len(content))):
        content += piece
    return content


def _end_process() -> None:
    """End the program as Ctrl-C would: it cancels what it does, and leaves nothing behind."""
    os.kill(os.getpid(), signal.SIGTERM)


class RemoteSession:
    """One exec's descriptors, which stay the caller's, and what is said over them.

    `stdin_bytes` is how much comes before standard input counts as ended; None: its end tells. `on_gone` is called,
    from any thread and perhaps several times, when the caller has gone.
    """

    shared: SharedRegistry | None = None
    """What the daemon has at hand."""

    def __init__(
        self,
        descriptors: tuple[int, int, int] = (0, 1, 2),
        *,
        stdin_bytes: int | None = None,
        on_gone: Callable[[], None] = _end_process,
    ) -> None:
        from registry_spooler.archive.source import PipeSource

        self._stdin, self._stdout, stderr = descriptors
        self.input = PipeSource(self._stdin, name="standard input", left_bytes=stdin_bytes)
        self.output = Outlet(self._stdout)
        self._lines = Outlet(stderr)
        self._on_gone = on_gone
        self._progress_due = 0.0

    def attach(self) -> None:
        """Let threads of this process keep the connection alive, and see the caller go."""
        threading.Thread(target=self._keep_alive, name="keep-alive", daemon=True).start()
        if self.input.left_bytes is not None:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run asynchronous work to its end; Interrupted when it was cancelled."""
        return run(work)

    def started(self, title: str, progress: Progress) -> None:
        """A transfer has begun."""

    def pushed(self, result: ImageResult) -> None:
        """An image has been pushed."""

    def base_wanted(self, step: LayerStep) -> None:
        """A layer is going to be compared with the one of the same step."""

    def next_request(self) -> list[str] | None:
        """Wait for the next command of a conversation, whose input is the session's then; None when no more come."""
        self.input.left_bytes = None
        with self.reading() as read:
            size = int.from_bytes(_exactly(read, _LENGTH_BYTES))
            if not 0 < size <= REQUEST_BYTES_MAX:
                return None
            try:
                arguments, self.input.left_bytes = decode_request(_exactly(read, size))
            except ValueError:
                return None
        self.output.written_bytes = 0
        return arguments

    @contextmanager
    def reading(self) -> Generator[Callable[[int], bytes]]:
        """Read standard input, in a thread, with what this yields: at most so many bytes, none at the end."""
        from registry_spooler.archive.source import PipeFeed

        feed = PipeFeed(self.input)
        try:
            yield feed.read
        finally:
            feed.close()

    def answer(self, content: bytes) -> None:
        """Write to standard output without waiting for the caller to read it; OutputClosed when it has gone."""
        try:
            self.output.put(content)
        except OSError as exc:
            raise OutputClosed from exc

    def standard_output(self) -> Output:
        """Return standard output for an archive that waits for its reader."""
        enlarge_pipe(self._stdout)

        def write(_: int, piece: Buffer) -> None:
            self.output.put(piece)
            self.output.flush()

        return Output(self._stdout, "standard output", leaves_writes=False, write_all=write)

    def progress(self, progress: Progress, *, final: bool = False) -> None:
        """Tell how far the work is; too early a call tells nothing."""
        now = time.monotonic()
        if now < self._progress_due and not final:
            return
        self._progress_due = now + PROGRESS_SECONDS
        self.say(progress_line(progress))

    def say(self, document: dict[str, Any]) -> None:
        """Write one line on standard error without waiting for the caller to read it."""
        try:
            self._lines.put(encode_line(document))
        except OSError:
            self._on_gone()

    def alive(self) -> None:
        """Show that the command lives, unless the caller has not even heard what was said before."""
        if not self._lines.is_behind:
            self.say(ALIVE)

    def conclude(self, code: int) -> None:
        """Write what is left of the answer, say the last word, and let what still comes in pass by; waits."""
        try:
            self.output.flush()
            self.say(LastWord(code=code, stdout_bytes=self.output.written_bytes).to_json())
            self._lines.flush()
        except (OSError, OutputClosed):
            self._on_gone()
        self._drain()

    def fail(self, failure: RemoteFailure) -> None:
        """Tell why the work failed, and that is the end of it: the caller need not wait for the exit code."""
        self.say(failure.to_json())

    def stop(self) -> None:
        """Let nobody wait for the caller to read any more."""
        self.output.stop()
        self._lines.stop()

    def close(self) -> None:
        """Give back what belongs to the session, which the descriptors do not."""
        self.output.close()
        self._lines.close()

    def _drain(self) -> None:
        """Read on until all has come, or nothing comes any more."""
        deadline = time.monotonic() + DRAIN_SECONDS
        poll = select.poll()
        poll.register(self._stdin, select.POLLIN)
        while self.input.left_bytes and time.monotonic() < deadline and poll.poll(QUIET_SECONDS * 1000):
            piece = os.read(self._stdin, min(self.input.left_bytes, _DRAIN_BYTES))
            if not piece:
                return
            self.input.left_bytes -= len(piece)

    def _keep_alive(self) -> None:
        while True:
            time.sleep(KEEP_ALIVE_SECONDS)
            self.alive()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._stdin, 0)  # what is reported unasked: that the other end has been closed
        poll.poll()
        self._on_gone()
