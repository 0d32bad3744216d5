"""One command in one container, over the API server.

`execute` dials; `Execution.send`, `close_stdin` and `receive` are the streams; `run` drives all of them at once:
one task sends what is to be read, this one hands out what is written, a third pings so that no proxy on the way thinks
the connection idle. Memory is constant: a piece is sent when the socket takes it, and the next message is read
when the last one has been dealt with.

Silence is what ends a connection, not duration: the far side says at least every ten seconds that it lives
(`registry-client --remote`), so `silence_seconds` without a word mean that it, or the way to it, does not.

What the server says of a command's end is a hint and no more. It reports success for a command whose kubelet died, and
nothing at all while more than some 16 MiB of standard input wait for a command that has ended. So whoever reads the
output may say with `is_over` that the command has said its last word; then the status is waited for only briefly.

A command is ended by closing the connection: its standard input ends and its output goes nowhere. It is up to the
command to notice, and `registry-client --remote` does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import anyio
from aiohttp import ClientWebSocketResponse, WSMsgType

from registry_spooler.aio import task_group
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import ExecCut, ExecNotStarted
from registry_spooler.kubernetes.frames import (
    Channel,
    ChannelOutput,
    Exited,
    FrameError,
    FrameReader,
    close_frame,
    stdin_frames,
)
from registry_spooler.kubernetes.pods import Container

if TYPE_CHECKING:
    from typing_extensions import Buffer


SILENCE_SECONDS: Final = 60.0
"""Six keep-alive lines of the far side."""
PING_SECONDS: Final = 20.0
"""Proxies and load balancers cut what is idle, the strictest after 30 seconds."""

ENDING_SECONDS: Final = 5.0
"""For what is still on its way when the exit code is known, and for the server to close the connection."""
STATUS_SECONDS: Final = 1.0
"""For the exit code when the command has said its last word."""

_CLOSED: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})

OnOutput = Callable[[ChannelOutput], Awaitable[None]]
"""Takes what the command wrote, in order; while it runs, nothing more is read."""


class Execution:
    """The streams of a running command. `send` and `receive` may be used by two tasks at once."""

    def __init__(self, socket: ClientWebSocketResponse, container: Container, program: str) -> None:
        self._socket = socket
        self._container = container
        self._program = program
        self._frames = FrameReader()

    @property
    def pod(self) -> str:
        """Where the command runs."""
        return self._container.pod

    async def send(self, data: Buffer) -> None:
        """Write to the command's standard input; returns when the connection has taken it. ExecCut when it is gone."""
        try:
            for frame in stdin_frames(data):
                await self._socket.send_bytes(frame)
        except (ConnectionError, RuntimeError) as exc:  # aiohttp raises the latter for a closed transport
            raise ExecCut(self._container.pod, "it was closed while sending") from exc

    async def close_stdin(self) -> None:
        """End the command's standard input."""
        try:
            await self._socket.send_bytes(close_frame(Channel.STDIN))
        except ConnectionError as exc:
            raise ExecCut(self._container.pod, "it was closed while sending") from exc

    async def ping(self) -> None:
        """Show everything on the way that the connection is in use; the answer is not waited for."""
        await self._socket.ping()

    @property
    def has_exited(self) -> bool:
        """Is the exit code known? The last output may still be on its way: servers copy each channel by itself."""
        return self._frames.exited is not None

    @property
    def code(self) -> int | None:
        """The exit code, if it is known."""
        return self._frames.exited.code if self._frames.exited is not None else None

    async def receive(self) -> ChannelOutput | Exited | None:
        """What the command wrote next; that it has ended; and None when the server has closed the connection.

        ExecCut when the server does not follow the protocol.
        """
        while True:
            message = await self._socket.receive()
            if message.type in _CLOSED:
                return None
            if message.type is not WSMsgType.BINARY:
                continue
            try:
                event = self._frames.feed(message.data)
            except FrameError as exc:
                raise ExecCut(self._container.pod, f"it does not follow the protocol ({exc})") from exc
            if event is not None:
                return event

    def exit_code(self) -> int:
        """How the command ended. ExecCut when the connection did first, ExecNotStarted when the command cannot run."""
        exited = self._frames.exited
        if exited is None:
            raise ExecCut(self._container.pod, self._reason()) from self._socket.exception()
        if exited.code is not None:
            return exited.code
        if exited.never_starts:
            raise ExecNotStarted(self._container.pod, self._container.name, self._program, exited.message)
        raise ExecCut(self._container.pod, f"{self._program} could not be started ({exited.message})")

    def _reason(self) -> str:
        code = self._socket.close_code
        return (
            f"it was closed before the command ended (code {code})"
            if code
            else "it was closed before the command ended"
        )


@asynccontextmanager
async def execute(
    cluster: Cluster, container: Container, command: Sequence[str], *, stdin: bool = True
) -> AsyncGenerator[Execution]:
    """Start a command; its arguments reach it as they are, no shell sees them. Leaving closes the connection."""
    streams = [("stdin", "true" if stdin else "false"), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
    query = [("container", container.name), *streams, *(("command", argument) for argument in command)]
    path = f"{cluster.pods_path}/{quote(container.pod, safe='')}/exec"
    asked = f"run {command[0]} in pod {container.pod}"
    async with cluster.dial(path, query, asked=asked, permission="get pods/exec") as socket:
        yield Execution(socket, container, command[0])


async def run(
    execution: Execution,
    on_output: OnOutput,
    *,
    stdin: AsyncGenerator[Buffer] | None = None,
    closes_stdin: bool = True,
    silence_seconds: float = SILENCE_SECONDS,
    is_over: Callable[[], bool] = lambda: False,
) -> int | None:
    """Send `stdin`, if there is any, and hand out what is written, until the command ends; its exit code.

    With `closes_stdin` standard input ends with `stdin`; without, it stays open as long as the connection, so that the
    command sees its caller go. `is_over` is asked after each output: once it is true nothing more is sent, and None is
    returned if the exit code does not follow soon. What `on_output` or `stdin` raise ends the connection.
    """
    async with task_group() as tasks:
        tasks.start_soon(_keep_alive, execution)
        if stdin is not None:
            tasks.start_soon(_send_all, execution, stdin, closes_stdin)
        await _receive(execution, on_output, silence_seconds, is_over)
        tasks.cancel_scope.cancel()
    if not is_over():
        return execution.exit_code()
    async with task_group() as tasks:
        tasks.start_soon(_keep_alive, execution)
        with anyio.move_on_after(STATUS_SECONDS):
            await _receive(execution, on_output, 2 * STATUS_SECONDS, lambda: execution.has_exited)
        tasks.cancel_scope.cancel()
    return execution.code


async def _receive(
    execution: Execution, on_output: OnOutput, silence_seconds: float, is_over: Callable[[], bool]
) -> None:
    """Hand out what is written until it is over, or nothing more can come."""
    seconds = silence_seconds
    while not is_over():
        try:
            with anyio.fail_after(seconds):
                event = await execution.receive()
        except TimeoutError as exc:
            if execution.has_exited:
                return
            raise ExecCut(execution.pod, f"nothing was heard for {silence_seconds:g} seconds") from exc
        if event is None:
            return
        if isinstance(event, Exited):
            seconds = ENDING_SECONDS
        else:
            await on_output(event)


async def _send_all(execution: Execution, stdin: AsyncGenerator[Buffer], closes_stdin: bool) -> None:
    try:
        async with aclosing(stdin):
            async for piece in stdin:
                await execution.send(piece)
        if closes_stdin:
            await execution.close_stdin()
    except ExecCut:
        return  # the receiving side knows more: perhaps the command has ended, and said why


async def _keep_alive(execution: Execution) -> None:
    while True:
        await anyio.sleep(PING_SECONDS)
        try:
            await execution.ping()
        except ConnectionError:
            return  # as above
