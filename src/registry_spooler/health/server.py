"""The HTTP server of the health port: a few paths, with limits that keep it small whoever talks to it.

A web page on evil.example can have its own name resolve to a port-forward on the visitor's machine, and read what
answers there; its requests then carry that foreign name as their Host. Addresses, names without a dot and
names of a cluster's services cannot be had by a stranger.
https://owasp.org/www-community/attacks/DNS_Rebinding

| path | answer |
| --- | --- |
| `/` | the page for people |
| `/live`, `/healthz` | 200 or 503, and the checks that a restart could mend |
| `/ready` | 200 or 503, and all checks; little room is a warning among them, and decides nothing |
| `/metrics` | the metrics |
| `/status` | the status as JSON; the metrics for a scraper |

Flow: a connection is counted (the oldest is dropped when there are too many) → a request is judged by its method, its
body and its path → an answer is written → the connection ends when the client ends it, is idle, or is too old.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import anyio
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

from registry_spooler.aio import in_thread
from registry_spooler.health.metrics import Metrics, is_scraper
from registry_spooler.health.probes import (
    BEAT_SECONDS,
    MEASURE_SECONDS,
    Check,
    Checks,
    LoopLag,
    Ping,
    RegistryPing,
    Volume,
    check_periodically,
)
from registry_spooler.health.remote import RemoteWork
from registry_spooler.health.status import About, Page, Status, safe_json
from registry_spooler.spool.state import SpoolState

_OWN_ENDINGS: Final = (".localhost", ".svc", ".svc.cluster.local")


class Hosts:
    """The names that are ours: this machine's own, and those that the settings add."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(_bare(name) for name in (*names, socket.gethostname()))

    def allow(self, headers: Sequence[str]) -> bool:
        """Return whether a request with these `Host` headers may be answered; one without any is no browser's."""
        return all(self._is_ours(_bare(header)) for header in headers)

    def _is_ours(self, host: str) -> bool:
        return "." not in host or host in self._names or host.endswith(_OWN_ENDINGS) or _is_address(host)


def _bare(host: str) -> str:
    """Return the host in lower case, without its port and without the dot of the DNS root."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or not (port.isdigit() or not port):
        name = host.strip().lower()
    return name.rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


FOR_OWN_NAMES: Final = frozenset({"/", "/status"})
"""What tells of files: not answered to a foreign `Host`. Probes and scrapers may come by any name."""


class Answers:
    """Answers requests, some of them only under the names that are ours."""

    def __init__(self, page: Page, checks: Checks, metrics: Metrics, status: Status, hosts: Hosts) -> None:
        self._page, self._checks, self._metrics, self._status, self._hosts = page, checks, metrics, status, hosts
        self._paths: Final[dict[str, Callable[[str], Response]]] = {
            "/": self._show_page,
            "/live": self._live,
            "/healthz": self._live,
            "/ready": self._ready,
            "/metrics": self._show_metrics,
            "/status": self._show_status,
        }

    async def answer(self, request: BaseRequest) -> Response:
        """Answer one request, whatever it is."""
        try:
            response = self._answer(request)
        except Exception:  # noqa: BLE001 - an answer that cannot be made takes neither the others nor the spool along
            _log.exception("a request to the health port could not be answered")
            response = refusal(500, "internal error; see the log")
        if request.body_exists:
            response.force_close()
        return response

    def _answer(self, request: BaseRequest) -> Response:
        if request.method not in {"GET", "HEAD"}:
            return refusal(405, "only GET and HEAD are answered here", {"Allow": "GET, HEAD"})
        if request.body_exists:
            return refusal(413, "a request here has no body")
        if (show := self._paths.get(request.path)) is None:
            return refusal(404, "there is nothing here; see /, /status, /metrics, /live and /ready")
        if request.path in FOR_OWN_NAMES and not self._hosts.allow(request.headers.getall("Host", ())):
            return refusal(421, "not answered under this host name; ask by address, or set --health-host")
        return show(request.headers.get("Accept", ""))

    def _show_page(self, _accept: str) -> Response:
        content = self._page.showing(safe_json(self._status.document()))
        return respond(content, "text/html; charset=utf-8", policy=self._page.policy)

    def _live(self, _accept: str) -> Response:
        self._checks.update()
        return _probe(self._checks.is_live, self._checks.live)

    def _ready(self, _accept: str) -> Response:
        self._checks.update()
        return _probe(self._checks.is_ready, (*self._checks.live, *self._checks.ready))

    def _show_metrics(self, accept: str) -> Response:
        return respond(*self._metrics.exposition(accept), headers={"Vary": "Accept"})

    def _show_status(self, accept: str) -> Response:
        if is_scraper(accept):
            return self._show_metrics(accept)
        return respond(safe_json(self._status.document()), headers={"Vary": "Accept"})


def respond(
    body: bytes,
    content_type: str = "application/json",
    *,
    status: int = 200,
    headers: Mapping[str, str] = MappingProxyType({}),
    policy: str = "default-src 'none'; frame-ancestors 'none'",
) -> Response:
    """Return an answer that says that it is nothing but itself."""
    own = {"Content-Type": content_type, "Content-Security-Policy": policy}
    return Response(status=status, body=body, headers={**_HEADERS, **own, **headers})


def refusal(status: int, reason: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """Return an answer to what is not answered here. Nothing of the request is repeated in it."""
    return respond(safe_json({"error": reason}), status=status, headers=headers)


def _probe(passing: bool, checks: tuple[Check, ...]) -> Response:
    document = {"status": "ok" if passing else "failing", "checks": {check.name: check.to_json() for check in checks}}
    return respond(safe_json(document), status=200 if passing else 503)


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
    """Serves `answers` over a limited number of connections. Loop thread only.

    It is aiohttp's low-level server: all of `aiohttp.web` takes 2.7 MiB more in memory, for six paths.
    """

    def __init__(self, answers: Answers, *, connection_seconds: float = CONNECTION_SECONDS) -> None:
        super().__init__(answers.answer)
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
        response = refusal(status, "this request cannot be answered here")
        response.force_close()
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
    """Return the port; IPv4's where the system chose one for each kind of address: people try `127.0.0.1`."""
    listener = min(listeners, key=lambda each: each.family is not socket.AF_INET)
    port: int = listener.getsockname()[1]
    return port


@dataclass(frozen=True, slots=True)
class Health:
    """What runs, for whoever started it."""

    port: int
    checks: Checks


@asynccontextmanager
async def serve(
    state: SpoolState,
    about: About,
    *,
    ping: Ping,
    address: str,
    port: int,
    hosts: Iterable[str] = (),
    request_retries: Mapping[str, int] = MappingProxyType({}),
    remote: RemoteWork | None = None,
) -> AsyncIterator[Health]:
    """Serve until the context is left. OSError when the port cannot be listened on.

    `state` is the spool's; `ping` asks the registry and raises SpoolerError when it is not there; an empty `address`
    means all of the machine's; port 0 lets the system choose; `hosts` are further names that `/` and `/status` are
    answered under; `request_retries` is read at each scrape: how many requests were sent again, and why;
    `remote` is what is done for callers from outside.
    """
    lag, volume = LoopLag(), Volume(Path(about.directory), about.spool_limit_bytes)
    checks = Checks(state, lag, volume)
    metrics = Metrics(about.version, state, checks, volume, lag, request_retries, remote)
    registry = RegistryPing(ping, state.registry)
    page = await in_thread(Page.read)
    status = Status(about, state, checks, volume, remote)
    answers = Answers(page, checks, metrics, status, Hosts((*hosts, address)))

    async def beat() -> None:
        lag.beat()
        checks.update()

    state.on_job_end = metrics.job_ended
    await volume.measure()
    await metrics.process.read()
    async with (
        anyio.create_task_group() as tasks,
        listening(HealthServer(answers), address, port) as listening_port,
    ):
        tasks.start_soon(check_periodically, volume.measure, lambda: MEASURE_SECONDS)
        tasks.start_soon(check_periodically, metrics.process.read, lambda: MEASURE_SECONDS)
        tasks.start_soon(check_periodically, beat, lambda: BEAT_SECONDS)
        tasks.start_soon(check_periodically, registry.ask, lambda: registry.interval_seconds)
        yield Health(listening_port, checks)
        tasks.cancel_scope.cancel()
