"""A proxy between client and registry that goes wrong on purpose.

It speaks HTTP/1.1, passes everything on as it is, and keeps a record. `Fault`s are taken in their order: one that
matches a request is used up by it. The registry builds its Locations from `Host`, so they lead through the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Headers = list[tuple[str, str]]


@dataclass
class Fault:
    """What goes wrong with one request. `method` and `path` (a regular expression) say with which."""

    method: str = ""
    path: str = ""
    skip: int = 0
    """How many matching requests go through before."""
    times: int = 1
    cut_request_after: int | None = None
    """Bytes of the request's body that reach the registry; then both connections break."""
    cut_answer_after: int | None = None
    """Bytes of the answer that reach the client; then the connection breaks. 0: the answer is lost."""
    answer: tuple[int, Headers, bytes] | None = None
    """Given by the proxy, in place of the registry's; the request does not get there."""
    reads_body: bool = True
    """False: the answer comes before the body has been read, and then the connection ends."""
    rewrite: Callable[[int, Headers], tuple[int, Headers]] | None = None
    """Changes the head of the registry's answer."""
    delay_seconds: float = 0.0

    def takes(self, method: str, target: str) -> bool:
        """Does it strike here? Counts the request."""
        if self.times <= 0 or (self.method and method != self.method) or not re.search(self.path, target):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Seen:
    """A request that came by."""

    method: str
    target: str
    headers: dict[str, str]
    body_bytes: int = 0
    status: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.target} -> {self.status}"


@dataclass
class FaultProxy:
    """Use `running_proxy`. `seen` has every request in its order."""

    upstream_host: str
    upstream_port: int
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str, path: str = "") -> int:
        """How many requests like this one came by."""
        return sum(1 for seen in self.seen if seen.method == method and re.search(path, seen.target))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from the client."""
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while head := await _read_head(reader):
                if upstream is None:
                    upstream = await asyncio.open_connection(self.upstream_host, self.upstream_port)
                if not await self._exchange(head, reader, writer, *upstream):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in (writer, *(upstream[1:] if upstream else ())):
                with contextlib.suppress(OSError):
                    each.transport.abort()

    async def _exchange(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; False when the connection is to end."""
        start, headers = _parse(head)
        method, target, _ = start.split(" ", 2)
        seen = Seen(method, target, {name.lower(): value for name, value in headers})
        self.seen.append(seen)
        fault = next((fault for fault in self.faults if fault.takes(method, target)), None) or Fault()
        await asyncio.sleep(fault.delay_seconds)
        if fault.answer is not None:
            return await self._answer(fault, seen, reader, writer)
        up_writer.write(head)
        async for piece in _body(reader, seen.headers):
            if fault.cut_request_after is not None and seen.body_bytes + len(piece) > fault.cut_request_after:
                up_writer.write(piece[: fault.cut_request_after - seen.body_bytes])
                await _hang_up(up_reader, up_writer)
                return False
            seen.body_bytes += len(piece)
            up_writer.write(piece)
            await up_writer.drain()
        if fault.cut_request_after is not None:
            await _hang_up(up_reader, up_writer)
            return False
        return await self._pass_back(fault, seen, writer, up_reader)

    async def _answer(
        self, fault: Fault, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        assert fault.answer is not None
        if fault.reads_body:
            async for piece in _body(reader, seen.headers):
                seen.body_bytes += len(piece)
        status, headers, body = fault.answer
        seen.status = status
        writer.write(_head(f"HTTP/1.1 {status} x", [*headers, ("Content-Length", str(len(body)))]))
        writer.write(b"" if seen.method == "HEAD" else body)
        await writer.drain()
        if not fault.reads_body:
            writer.write_eof()
            with contextlib.suppress(asyncio.IncompleteReadError):
                await asyncio.wait_for(reader.read(), 5)
        return fault.reads_body

    async def _pass_back(
        self, fault: Fault, seen: Seen, writer: asyncio.StreamWriter, up_reader: asyncio.StreamReader
    ) -> bool:
        head = await _read_head(up_reader)
        if not head:
            raise ConnectionResetError("the registry has ended the connection without an answer")
        start, headers = _parse(head)
        seen.status = int(start.split(" ", 2)[1])
        names = {name.lower(): value for name, value in headers}
        bodiless = seen.method == "HEAD" or seen.status in {204, 304}
        if fault.rewrite is not None:
            status, headers = fault.rewrite(seen.status, headers)
            start = f"HTTP/1.1 {status} x"
        left = fault.cut_answer_after
        for piece in (_head(start, headers),):
            writer.write(piece if left is None else piece[:left])
            left = None if left is None else max(0, left - len(piece))
        if not bodiless:
            async for piece in _body(up_reader, names):
                writer.write(piece if left is None else piece[:left])
                left = None if left is None else max(0, left - len(piece))
                await writer.drain()
        await writer.drain()
        return fault.cut_answer_after is None


@asynccontextmanager
async def running_proxy(host: str, *faults: Fault) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the registry at `host:port`."""
    name, _, port = host.rpartition(":")
    proxy = FaultProxy(name, int(port), list(faults))
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await proxy.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End a connection so that all that was sent arrives, and wait until it has."""
    await writer.drain()
    writer.write_eof()
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(reader.read(), 5)


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        return b""


def _parse(head: bytes) -> tuple[str, Headers]:
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    return start, [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def _head(start: str, headers: Headers) -> bytes:
    return "\r\n".join([start, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """A body as it stands on the wire, the chunked coding included."""
    if "chunked" in headers.get("transfer-encoding", ""):
        while True:
            size = await reader.readline()
            yield size
            length = int(size.split(b";")[0], 16)
            yield await reader.readexactly(length + 2)
            if length == 0:
                return
    left = int(headers.get("content-length", "0"))
    while left:
        piece = await reader.read(min(left, 1 << 16))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece
