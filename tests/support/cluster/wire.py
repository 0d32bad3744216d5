"""The network between the user and the cluster: it counts bytes, cuts connections, and delays."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Wire:
    """A TCP proxy on a port of its own. `sent` and `received` are the bytes that crossed it, seen from the user."""

    target_port: int
    port: int = 0
    sent: int = 0
    received: int = 0
    cuts: int = 0
    connections: int = 0
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    cut_each_after: int | None = None
    """Cut every connection when so many bytes have been sent since it came."""
    refuses: bool = False
    """Nobody listens behind it."""
    _cut_sent: int | None = None
    _cut_received: int | None = None
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut_after(self, *, sent: int | None = None, received: int | None = None) -> None:
        """Cut every connection, once, when so many more bytes have crossed in that direction."""
        self._cut_sent = None if sent is None else self.sent + sent
        self._cut_received = None if received is None else self.received + received

    def cut(self) -> None:
        """Cut every connection now, as a proxy does that has restarted: without a word."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        if self.cut_each_after is not None:
            self.cut_after(sent=self.cut_each_after)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer, upward=True))
                tasks.create_task(self._pump(far_reader, writer, upward=False))
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        with suppress(OSError):
            while piece := await reader.read(16 * 1024):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if self.bytes_per_second:
                    await asyncio.sleep(len(piece) / self.bytes_per_second)
                due = self._count(len(piece), upward=upward)
                writer.write(piece[:due])
                if due < len(piece):
                    await writer.drain()
                    self.cuts += 1
                    self.cut()
                    return
                await writer.drain()
            writer.write_eof()

    def _count(self, length: int, *, upward: bool) -> int:
        """How many of the bytes go through before the cut."""
        if upward:
            self.sent += length
            over = self.sent - self._cut_sent if self._cut_sent is not None else 0
        else:
            self.received += length
            over = self.received - self._cut_received if self._cut_received is not None else 0
        if over <= 0:
            return length
        self._cut_sent = self._cut_received = None
        return max(0, length - over)
