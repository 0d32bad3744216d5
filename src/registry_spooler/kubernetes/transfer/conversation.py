"""Several commands over one exec: to start a program in a pod takes longer than most of what it is asked for.

`registry-client requests` reads a request, does it and answers, until its standard input ends. A request is four bytes
with the length of a JSON object, that object (`arguments`, `stdin_bytes`), and so many bytes. The answer is on standard
output; the lines on standard error are those of a single command, its last word included, which ends the answer.

One request at a time. When one fails before its input has been sent, or the connection breaks, the exec is given up,
and the next request starts another.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc

from registry_spooler.aio import task_group
from registry_spooler.kubernetes.cluster_errors import ExecCut, KubeError
from registry_spooler.kubernetes.exec import execute, run
from registry_spooler.kubernetes.frames import ChannelOutput
from registry_spooler.kubernetes.remote_session import Call, Input, Remote, parse_answer
from registry_spooler.kubernetes.wire import REQUESTS, Document, command, encode_request

if TYPE_CHECKING:
    from typing_extensions import Buffer

LAST_WORD_SECONDS: Final = 2.0
"""For the last word after an error: without it the exec cannot be used any more."""


class Conversation:
    """Commands to one container, over an exec that stays open. Made by `conversing`."""

    def __init__(self, remote: Remote, tasks: anyio.abc.TaskGroup) -> None:
        self._remote = remote
        self._tasks = tasks
        self._lock = anyio.Lock()
        self._exec: _Exec | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether a command would not have to wait for another to end."""
        return not self._lock.locked()

    async def call(
        self, *arguments: str, stdin: Input | None = None, on_sent: Callable[[int], None] | None = None
    ) -> bytes:
        """Run one command and return what it wrote; see `Remote.call`."""
        call = Call(self._remote)
        async with self._lock:
            await self._remote.attempt(lambda: self._request(call, arguments, stdin, on_sent))
        return bytes(call.answer)

    async def call_json(
        self, *arguments: str, stdin: Input | None = None, on_sent: Callable[[int], None] | None = None
    ) -> Document:
        """Run one command whose answer is JSON."""
        return parse_answer(arguments[0], await self.call(*arguments, stdin=stdin, on_sent=on_sent))

    async def _request(
        self, call: Call, arguments: tuple[str, ...], stdin: Input | None, on_sent: Callable[[int], None] | None
    ) -> None:
        header = encode_request(arguments, stdin.size if stdin is not None else 0)
        await self._started().request(call, header, self._remote.pieces(stdin, on_sent))

    async def open(self) -> None:
        """Return when the exec is open. What goes wrong is told by the next call, which tries again."""
        await self._started().opened.wait()

    def _started(self) -> _Exec:
        if self._exec is None or self._exec.is_closed:
            self._exec = _Exec(self._remote)
            self._tasks.start_soon(self._exec.run)
        return self._exec


@asynccontextmanager
async def conversing(remote: Remote) -> AsyncGenerator[Conversation]:
    """Converse with a container while the block runs. The exec opens at once, whatever the caller does meanwhile."""
    async with task_group() as tasks:
        conversation = Conversation(remote, tasks)
        tasks.start_soon(conversation.open)
        yield conversation
        tasks.cancel_scope.cancel()


class _Exec:
    """One exec, and the request that it works on."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._scope = anyio.CancelScope()
        self._send, self._receive = anyio.create_memory_object_stream["Buffer"](0)
        self._call = Call(remote)
        self._news = anyio.Event()
        self._failure: KubeError | None = None
        self.opened = anyio.Event()
        """Set when it is open, or has failed to."""
        self.is_closed = False

    async def run(self) -> None:
        """Keep the exec open until it is closed from here or there."""
        line = command(REQUESTS, stdin_bytes=0)
        try:
            with self._scope:
                async with execute(self._remote.cluster, self._remote.container, line) as execution:
                    self.opened.set()
                    code = await run(
                        execution,
                        self._take,
                        stdin=self._outgoing(),
                        closes_stdin=False,
                        silence_seconds=self._remote.silence_seconds,
                    )
                self._failure = self._call.error(code or 0)
        except KubeError as exc:
            self._failure = exc
        finally:
            self.is_closed = True
            self.opened.set()
            self._send.close()
            self._receive.close()
            self._news.set()

    async def request(self, call: Call, header: bytes, pieces: AsyncGenerator[Buffer] | None) -> None:
        """Do one request; raises what went wrong."""
        self._call, is_sent = call, False

        async def send() -> None:
            nonlocal is_sent
            is_sent = await self._sent(header, pieces)

        async with task_group() as tasks:
            tasks.start_soon(send)
            await self._until(call.is_over)
            if is_sent:
                with anyio.move_on_after(LAST_WORD_SECONDS):
                    await self._until(call.has_last_word)
            tasks.cancel_scope.cancel()
        if not (is_sent and call.has_last_word()):
            self._scope.cancel()
            self.is_closed = True
        if not call.is_over():
            raise self._failure or ExecCut(self._remote.container.pod, "it was closed")
        call.conclude(0)

    async def _sent(self, header: bytes, pieces: AsyncGenerator[Buffer] | None) -> bool:
        """Send a request, and return whether all of it went out."""
        try:
            await self._send.send(header)
            if pieces is not None:
                async with aclosing(pieces):
                    async for piece in pieces:
                        await self._send.send(piece)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False
        return True

    async def _until(self, is_true: Callable[[], bool]) -> None:
        while not is_true() and not self.is_closed:
            await self._news.wait()
            self._news = anyio.Event()

    async def _outgoing(self) -> AsyncGenerator[Buffer]:
        async for piece in self._receive:
            yield piece

    async def _take(self, output: ChannelOutput) -> None:
        await self._call.take(output)
        if self._call.is_over():
            self._news.set()
