"""The far end of `kubectl spool`: the daemon does what `registry-client --remote` was started for.

That program hands over its descriptors and arguments and waits; `cli/registry_client/handover.py` describes the
messages. The same commands then run here: each in a thread of its own, in which it may wait for its caller, and what it
asks of the registry in the event loop, with the daemon's client. So ten callers share one process, its connections,
tokens, threads and its memory for uploads. Transfers of images are few at a time; the others wait in the order of
arrival, and their callers are told how many come first.

A job ends with the program that handed it over: that goes when its caller does, or is killed. Whatever goes wrong in a
job is told to its caller. When the daemon stops, its callers are told so, and dial again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from registry_spooler.aio import in_thread
from registry_spooler.archive.source import PipeFeed
from registry_spooler.cli.process import ExitCode, Interrupted
from registry_spooler.cli.registry_client.command_line import failure, run_for
from registry_spooler.cli.registry_client.handover import (
    PACKET_BYTES,
    REFUSED,
    TAKEN,
    greeting,
    is_private,
    peer_uid,
    request,
    socket_paths,
)
from registry_spooler.cli.registry_client.remote_end import KEEP_ALIVE_SECONDS, RemoteSession, SharedRegistry
from registry_spooler.daemon.line import Line
from registry_spooler.daemon.next_bases import WAITING_MAX, NextBases
from registry_spooler.daemon.stop_signals import SIGNALS
from registry_spooler.delta.base import LayerStep
from registry_spooler.errors import SpoolerError
from registry_spooler.health.remote import RemoteTransfer, RemoteWork
from registry_spooler.kubernetes.wire import REQUESTS, RemoteFailure, SpoolerStopping
from registry_spooler.progress import ImageResult, Progress

TRANSFERS_MAX: Final = 4
"""Transfers at a time. Each holds some megabytes on its way, and a few keep the processors busy."""
CALLS_MAX: Final = 128
"""Calls at a time, those included that wait. Further ones wait to be greeted, and then do their work themselves."""
HANDSHAKE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 1.0
SILENCE_IN_SECONDS: Final = 120.0
"""For the next byte of a transfer: a caller who has been suspended must not keep a place from the others."""
SILENCE_OUT_SECONDS: Final = 600.0
"""For a caller to take the next byte: what is behind it may be a person."""
TRANSFERS: Final = frozenset({"receive", "pull", "push", "signature", "rebuild"})

_log: Final = logging.getLogger("registry_spooler.daemon.remote")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """What a program has handed over; its descriptors are ours."""

    descriptors: tuple[int, int, int]
    stdin_bytes: int
    arguments: list[str]


class DaemonSession(RemoteSession):
    """A caller's session in the daemon. Made in the event loop, used in the thread of its command."""

    def __init__(self, call: RemoteCall, shared: SharedRegistry) -> None:
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            loop.call_soon_threadsafe(self.cancel)

        super().__init__(call.descriptors, stdin_bytes=call.stdin_bytes, on_gone=cancel)
        self.shared = shared
        self.transfer = RemoteTransfer(command=call.arguments[0])
        self.is_cancelled = False
        self.steps: deque[LayerStep] = deque(maxlen=WAITING_MAX)
        """Of the layers for which bases were asked, since the last image."""
        self._reason: SpoolerError | None = None
        self._scopes: list[anyio.CancelScope] = []
        self._feeds: list[PipeFeed] = []
        self._is_closed = False

    def cancel(self, reason: SpoolerError | None = None) -> None:
        """End the work; the caller is told the reason, if there is one."""
        if self.is_cancelled or self._is_closed:
            return
        self.is_cancelled, self._reason = True, reason
        for feed in tuple(self._feeds):
            feed.stop()
        for scope in self._scopes:
            scope.cancel()
        self.stop()

    def tell_reason(self) -> None:
        """Say once why the work was cancelled."""
        reason, self._reason = self._reason, None
        if reason is not None:
            super().fail(failure(reason))

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run asynchronous work in the daemon's event loop, for the thread that calls this."""

        async def cancellable() -> T:
            with self.cancelled_with():
                return await work()
            raise Interrupted(SIGNALS[0])

        return anyio.from_thread.run(cancellable)

    @contextmanager
    def cancelled_with(self) -> Generator[None]:
        """Cancel the block when the session is cancelled."""
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                if self.is_cancelled:
                    scope.cancel()
                yield
            finally:
                self._scopes.remove(scope)

    @contextmanager
    def reading(self) -> Generator[Callable[[int], bytes]]:
        """Read standard input until the session is cancelled."""
        feed = PipeFeed(self.input)
        self._feeds.append(feed)
        try:
            if self.is_cancelled:
                feed.stop()
            yield feed.read
        finally:
            self._feeds.remove(feed)
            feed.close()

    def started(self, title: str, progress: Progress) -> None:
        """Show a transfer that has begun."""
        self.transfer.reference, self.transfer.progress = title, progress

    def pushed(self, result: ImageResult) -> None:
        """Show an image that has been pushed."""
        self.transfer.result = result

    def fail(self, failure: RemoteFailure) -> None:
        """Tell what went wrong, unless that is only that the work was cancelled."""
        if not self.is_cancelled:
            super().fail(failure)

    def base_wanted(self, step: LayerStep) -> None:
        """Note a layer that is compared, and will be again."""
        self.steps.append(step)

    def wait_in_line(self, ahead: int | None) -> None:
        """Tell how many come first; None: it is this one's turn."""
        self.transfer.ahead = ahead
        if ahead is not None:
            self.say({"waiting": ahead})

    def close(self) -> None:
        """Give back what belongs to the session."""
        self._is_closed = True
        super().close()


class RemoteJobs:
    """Takes calls while `serve` runs. Loop thread only."""

    def __init__(self, directory: Path, shared: SharedRegistry, work: RemoteWork) -> None:
        self._directory = directory
        self._shared = shared
        self._work = work
        self._line = Line(TRANSFERS_MAX)
        self._next_bases = NextBases(shared.client, shared.signatures, self._line)
        self._calls = anyio.Semaphore(CALLS_MAX)
        self._threads = anyio.CapacityLimiter(CALLS_MAX)
        self._sessions: set[DaemonSession] = set()
        self._stopping = anyio.Event()

    def stop(self) -> None:
        """Take no more calls, and end those that run."""
        self._stopping.set()
        for session in tuple(self._sessions):
            session.cancel(SpoolerStopping())

    async def serve(self) -> None:
        """Take calls until `stop`, or until cancelled."""
        try:
            listening = await in_thread(_listen, str(self._directory))
        except OSError as exc:
            _log.warning("calls of `kubectl spool` will take more memory: their socket cannot be created: %s", exc)
            return
        _log.debug("remote calls at %s", listening.path)
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    tasks.start_soon(self._accept, listening.listener, tasks)
                    tasks.start_soon(self._next_bases.run)
                    await self._stopping.wait()
                finally:
                    self.stop()
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(listening.close)

    async def _accept(self, listener: socket.socket, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            await self._calls.acquire()
            await anyio.wait_readable(listener)
            try:
                connection, _ = listener.accept()
            except OSError as exc:  # whoever called has gone, or there are no more descriptors
                self._calls.release()
                if not isinstance(exc, BlockingIOError):
                    await anyio.sleep(_PAUSE_SECONDS)
            else:
                tasks.start_soon(self._serve, connection)

    async def _serve(self, connection: socket.socket) -> None:
        """Do what one connection asks for. Nothing that goes wrong here reaches the daemon."""
        try:
            with connection:
                connection.setblocking(False)
                call = await _receive(connection)
                if call is not None:
                    await self._do(connection, call)
        except Exception as exc:  # noqa: BLE001 - whatever became of one call, the others go on
            _log.debug("a remote call broke off: %s", exc, exc_info=True)
        finally:
            self._calls.release()

    async def _do(self, connection: socket.socket, call: RemoteCall) -> None:
        code: int = ExitCode.FAILED
        session = DaemonSession(call, self._shared)
        self._sessions.add(session)
        try:
            connection.send(TAKEN)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_at_end, connection, session)
                tasks.start_soon(_keep_alive, session)
                with anyio.CancelScope(shield=True):
                    # What cancels this task cancels the session, whose thread is waited for.
                    code = await self._run_all(session, call)
                tasks.cancel_scope.cancel()
        finally:
            self._sessions.remove(session)
            session.close()
            _close(call.descriptors)
        connection.send(bytes((code,)))

    async def _run_all(self, session: DaemonSession, call: RemoteCall) -> int:
        """Run the one command, or all commands of a conversation; return the last exit code."""
        if call.arguments[0] != REQUESTS:
            return await self._run(session, call.arguments)
        code: int = ExitCode.DONE
        while (arguments := await self._next(session)) is not None:
            code = await self._run(session, arguments)
        session.tell_reason()
        return code

    async def _next(self, session: DaemonSession) -> list[str] | None:
        if session.is_cancelled:
            return None
        try:
            return await anyio.to_thread.run_sync(session.next_request, limiter=self._threads)
        except SpoolerError:  # it was cancelled meanwhile
            return None

    async def _run(self, session: DaemonSession, arguments: list[str]) -> int:
        code: int = ExitCode.FAILED
        command, stdin_bytes = arguments[0], session.input.left_bytes or 0
        transfer = session.transfer = RemoteTransfer(command=command)
        with session.cancelled_with():
            async with AsyncExitStack() as stack:
                if command in TRANSFERS:
                    session.input.patience_seconds = SILENCE_IN_SECONDS
                    session.output.patience_seconds = SILENCE_OUT_SECONDS
                    stack.callback(setattr, session.input, "patience_seconds", None)
                    self._work.transfers.append(transfer)
                    stack.callback(self._work.transfers.remove, transfer)
                    await stack.enter_async_context(self._line.place(session.wait_in_line))
                code = await anyio.to_thread.run_sync(_run_here, session, arguments, limiter=self._threads)
        outcome = "cancelled" if session.is_cancelled else "failed" if code else "done"
        received_bytes = stdin_bytes - (session.input.left_bytes or 0)
        sent_bytes = session.output.written_bytes
        self._work.count(command, outcome, received_bytes=received_bytes, sent_bytes=sent_bytes)
        if outcome == "done":
            self._work.ended(transfer)
            self._sign_later(session, transfer.result)
        _log.debug("remote %s %s: %s", command, transfer.reference, outcome)
        session.tell_reason()
        with session.cancelled_with():
            await anyio.to_thread.run_sync(session.conclude, code, limiter=self._threads)
        return code

    def _sign_later(self, session: DaemonSession, result: ImageResult | None) -> None:
        if result is not None:
            for step in session.steps:
                self._next_bases.add(result.reference, step)
            session.steps.clear()


def _run_here(session: DaemonSession, arguments: list[str]) -> int:
    """Run the command in this thread; what nobody expects is told, and goes no further."""
    try:
        return run_for(session, arguments)
    except Exception:  # noqa: BLE001 - logged, and told to the caller
        _log.exception("remote %s failed", arguments[0])
        session.fail(RemoteFailure(sentence="an internal error; `kubectl spool logs` shows it", kind="InternalError"))
        return ExitCode.FAILED


async def _receive(connection: socket.socket) -> RemoteCall | None:
    """Greet, and return what is handed over; None when this is nobody to work for."""
    if peer_uid(connection) != os.geteuid():
        return None
    connection.send(greeting())
    with anyio.move_on_after(HANDSHAKE_SECONDS):
        await anyio.wait_readable(connection)
        message, descriptors, flags, _ = socket.recv_fds(connection, PACKET_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
        call = None if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) else _read(message, descriptors)
        if call is not None:
            return call
        _close(descriptors)
        if message:
            connection.send(REFUSED)
    return None


def _read(message: bytes, descriptors: list[int]) -> RemoteCall | None:
    """Read a request; None for one that is not done here: its settings are others, its descriptors no pipes."""
    count, *fields = os.fsdecode(message).split("\0")
    if not count.isdecimal() or int(count) < 2 or len(fields) < int(count):
        return None
    stdin_bytes, *arguments = fields[: int(count)]
    if message != request([stdin_bytes, *arguments]) or not stdin_bytes.isdecimal():
        return None
    if len(descriptors) != 3 or not all(stat.S_ISFIFO(os.fstat(descriptor).st_mode) for descriptor in descriptors):
        return None
    stdin, stdout, stderr = descriptors
    return RemoteCall((stdin, stdout, stderr), int(stdin_bytes), arguments)


async def _cancel_at_end(connection: socket.socket, session: DaemonSession) -> None:
    """Cancel the session when the program at the other end goes: it has nothing more to say."""
    await anyio.wait_readable(connection)
    session.cancel()


async def _keep_alive(session: DaemonSession) -> None:
    while True:
        await anyio.sleep(KEEP_ALIVE_SECONDS)
        session.alive()


def _close(descriptors: tuple[int, ...] | list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Listening:
    listener: socket.socket
    path: str
    inode: int

    def close(self) -> None:
        """Stop listening. The socket of another daemon that has taken the place of ours stays."""
        self.listener.close()
        with suppress(FileNotFoundError):
            if os.lstat(self.path).st_ino == self.inode:
                os.unlink(self.path)


def _listen(directory: str) -> _Listening:
    """Listen for calls about a spool directory; a socket that a dead daemon left is replaced. OSError."""
    troubles: list[OSError] = []
    for path in socket_paths(directory):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            return _Listening(listener, path, _bind(listener, path))
        except OSError as exc:
            listener.close()
            troubles.append(exc)
    raise troubles[0]


def _bind(listener: socket.socket, path: str) -> int:
    """Let a socket appear under its path when it listens; return its inode."""
    folder, temporary = os.path.dirname(path), f"{path}.{os.getpid()}"
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if not is_private(folder):
        raise PermissionError(f"{folder} is not this user's alone")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    listener.bind(temporary)
    listener.listen(CALLS_MAX)
    listener.setblocking(False)
    inode = os.lstat(temporary).st_ino
    os.rename(temporary, path)
    return inode
