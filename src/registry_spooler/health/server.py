"""The HTTP server: GET and HEAD of a few paths, with limits that keep it small whoever talks to it.

Flow: a connection is counted (the oldest makes room when there are too many) → a request is judged by its method, its
body and its path → an answer is written → the connection ends when the client ends it, is idle, or is too old.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

from registry_spooler.health.answers import FOR_OWN_NAMES, Answer, Answers, refusal
from registry_spooler.health.hosts import Hosts

CONNECTIONS_MAX: Final = 64
"""The newest connection is always served, so that nobody who opens many can keep the kubelet's probes out."""
CONNECTION_SECONDS: Final = 60.0
"""However slowly a request comes or an answer is read; a client that polls connects anew once a minute."""
IDLE_SECONDS: Final = 15.0
_LINE_MAX_BYTES: Final = 4_096
_HEADERS_MAX: Final = 64
_READ_BYTES: Final = 1 << 14

_HEADERS: Final = {
    "Server": "registry-spooler",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_log = logging.getLogger("registry_spooler.health")


class HealthServer(Server):
    """Serves `answers`, some of them only under the names that are ours. Loop thread only."""

    def __init__(
        self, answers: Answers, hosts: Hosts | None = None, *, connection_seconds: float = CONNECTION_SECONDS
    ) -> None:
        super().__init__(self._handle)
        self._answers = answers
        self._hosts = hosts or Hosts()
        self._connection_seconds = connection_seconds
        self._open: dict[RequestHandler, tuple[asyncio.Transport, asyncio.TimerHandle]] = {}

    def __call__(self) -> RequestHandler:
        """One more connection."""
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # None switches it off; the annotation forgets that
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=0,
            max_line_size=_LINE_MAX_BYTES,
            max_field_size=_LINE_MAX_BYTES,
            max_headers=_HEADERS_MAX,
            read_bufsize=_READ_BYTES,
        )

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection in; the oldest goes when there are too many."""
        super().connection_made(handler, transport)
        if len(self._open) >= CONNECTIONS_MAX:
            oldest, _ = next(iter(self._open.values()))
            oldest.abort()
        too_old = asyncio.get_running_loop().call_later(self._connection_seconds, transport.abort)
        self._open[handler] = (transport, too_old)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Count a connection out."""
        super().connection_lost(handler, exc)
        _, too_old = self._open.pop(handler)
        too_old.cancel()

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        try:
            answer = await self._answer(request)
        except Exception:  # noqa: BLE001 - an answer that cannot be made takes neither the others nor the spool along
            _log.exception("no answer could be made for a request to the health port")
            answer = refusal(500, "the answer could not be made; the log says why")
        response = _response(answer)
        if request.body_exists:
            response.force_close()
        return response

    async def _answer(self, request: BaseRequest) -> Answer:
        if request.method not in {"GET", "HEAD"}:
            return refusal(405, "only GET and HEAD are answered here", {"Allow": "GET, HEAD"})
        if request.body_exists:
            return refusal(413, "a request here has no body")
        find = self._answers.find(request.path)
        if find is None:
            return refusal(404, "there is nothing here; see /, /status, /metrics, /live and /ready")
        if request.path in FOR_OWN_NAMES and not self._hosts.allow(request.headers.getall("Host", ())):
            return refusal(421, "not answered under this host name; ask by address, or set --health-host")
        return await find(request.headers.get("Accept", ""))


class _Connection(RequestHandler):
    """aiohttp's connection, but for what it answers to bytes that are no request: nothing of them is repeated."""

    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Refuse, and close; ConnectionError when an answer has begun."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        response = _response(refusal(status, "that is not a request that is answered here"))
        response.force_close()
        return response


def _response(answer: Answer) -> Response:
    response = Response(status=answer.status, body=answer.body, headers={**_HEADERS, **answer.headers})
    response.headers["Content-Type"] = answer.content_type
    response.headers["Content-Security-Policy"] = answer.policy
    return response


@asynccontextmanager
async def listening(server: HealthServer, address: str, port: int) -> AsyncIterator[int]:
    """Listen while the context lasts; it is entered with the port, which the system chose when 0 was asked for.

    OSError when the address is not ours or the port is taken.
    """
    listener = await asyncio.get_running_loop().create_server(server, address or None, port, backlog=CONNECTIONS_MAX)
    try:
        yield _port(listener.sockets)
    finally:
        listener.close()
        with anyio.CancelScope(shield=True):
            server.pre_shutdown()
            await server.shutdown(timeout=1.0)


def _port(listeners: Sequence[socket.socket]) -> int:
    """The port; IPv4's where the system chose one for each kind of address, since `127.0.0.1` is what people try."""
    listener = min(listeners, key=lambda each: each.family is not socket.AF_INET)
    port: int = listener.getsockname()[1]
    return port
