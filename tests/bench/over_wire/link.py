"""A line of a given rate and delay: a TCP proxy on a port of 127.0.0.1, and the handle by which the bench holds it.

It is a program of its own, so that it can run in a cluster's network and takes no time from what is measured. Both
directions have the rate, which all connections share; a connection's first byte is late by a round trip, as its
handshake would be. TCP's slow start is not played, and headers below TCP are not counted.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PIECE_BYTES = 16 << 10
BURST_SECONDS = 0.005
"""How far the line may catch up when the machine has woken us late."""
BUFFER_BYTES = 256 << 10
"""What a socket takes in before the line has sent it; without a bound the kernel lets it grow to megabytes."""
ON_ITS_WAY_MAX = 256
"""Pieces between the line and a far end that does not read."""


@dataclass(frozen=True, slots=True)
class Line:
    """Bits a second in each direction, and seconds there and back."""

    rate_bits: float
    round_trip_seconds: float

    def __str__(self) -> str:
        return f"{self.rate_bits / 1e6:g} Mbit/s, {self.round_trip_seconds * 1000:g} ms"


@dataclass(frozen=True, slots=True)
class Crossed:
    """Bytes that have crossed so far, as the user sees them."""

    sent: int
    received: int


class Link:
    """A running proxy; it is gone at the end of the block. `prefix` starts it elsewhere, as in another network."""

    def __init__(self, target: tuple[str, int], line: Line, prefix: Sequence[str] = ()) -> None:
        host, port = target
        arguments = (host, str(port), str(line.rate_bits), str(line.round_trip_seconds))
        self._command = [*prefix, sys.executable, __file__, *arguments]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._answer()["port"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.communicate()  # the end of its input is the end of it

    def crossed(self) -> Crossed:
        """How much has crossed by now."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Crossed(**self._answer())

    def _answer(self) -> dict[str, int]:
        assert self._process is not None
        assert self._process.stdout is not None
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer


class Lane:
    """When one direction of a line has sent a piece, and when that arrives. `carried` counts bytes."""

    def __init__(self, line: Line) -> None:
        self._seconds_per_byte = 8 / line.rate_bits
        self._one_way_seconds = line.round_trip_seconds / 2
        self._free_at = 0.0
        self.carried = 0

    def send(self, now: float, size: int) -> tuple[float, float]:
        """Put a piece behind all that is on the line: when the line is free again, and when the piece arrives."""
        self._free_at = max(self._free_at, now - BURST_SECONDS) + size * self._seconds_per_byte
        self.carried += size
        return self._free_at, max(self._free_at, now) + self._one_way_seconds


async def _carry(lane: Lane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bring all that comes to the other side, and its end."""
    arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_ITS_WAY_MAX)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_deliver(arriving, writer))
        piece = b"-"
        while piece:
            piece = await reader.read(PIECE_BYTES)
            free_at, arrives = lane.send(asyncio.get_running_loop().time(), len(piece))
            await arriving.put((arrives, piece))
            await _sleep_until(free_at)


async def _deliver(arriving: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    while True:
        arrives, piece = await arriving.get()
        await _sleep_until(arrives)
        if not piece:
            writer.write_eof()
            return
        writer.write(piece)
        await writer.drain()


async def _serve(host: str, port: int, line: Line) -> None:
    up, down = Lane(line), Lane(line)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(line.round_trip_seconds)
        ends = [writer]
        # A connection that is reset on one side ends on the other; what is cancelled, with the whole program.
        with suppress(OSError, ExceptionGroup, asyncio.CancelledError):
            far = _socket()
            far.setblocking(False)
            await asyncio.get_running_loop().sock_connect(far, (host, port))
            far_reader, far_writer = await asyncio.open_connection(sock=far)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_carry(up, reader, far_writer))
                tasks.create_task(_carry(down, far_reader, writer))
        for end in ends:
            end.transport.abort()

    listening = _socket()
    listening.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(connect, sock=listening)
    _say(port=listening.getsockname()[1])
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while await commands.readline():
        _say(sent=up.carried, received=down.carried)
    server.close()


async def _sleep_until(time: float) -> None:
    await asyncio.sleep(max(0, time - asyncio.get_running_loop().time()))


def _socket() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return made


def _say(**figures: int) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), Line(float(sys.argv[3]), float(sys.argv[4]))))
