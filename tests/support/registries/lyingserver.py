"""A server that answers with whatever bytes a test writes, as slowly as the test likes; HTTP is up to the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Gets the head of each request, and the connection; the request's body is still to be read."""


def page(status: int, headers: str = "", body: bytes = b"") -> bytes:
    """An answer; `headers` are lines that end in CRLF."""
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def lying(answer: Answer) -> AsyncIterator[str]:
    """Serve; gives the URL."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not reader.at_eof():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                await answer(head, reader, writer)
                await writer.drain()
        writer.transport.abort()
        connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def body_of(head: str, reader: asyncio.StreamReader) -> bytes:
    """The request's body, by its Content-Length."""
    lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    return await reader.readexactly(int(lines.get("content-length", "0")))
