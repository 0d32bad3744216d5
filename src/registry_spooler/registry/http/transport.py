"""The one module that sends by the HTTP library: requests out, answers in, its errors translated.

One session with one connection pool per client. Nothing is followed, decoded or remembered here: no
redirects, no cookies, no decompression.

What may take how long: the head of an answer has a deadline, counted from when the request has been sent (informational
answers do not extend it), and so has a small body. A transfer has none as long as it moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import anyio
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from registry_spooler.errors import RegistryProtocolError, RegistryUnreachable
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.registry.address import Origin, redact
from registry_spooler.registry.http.retry import connection_reason
from registry_spooler.registry.http.trust import JudgedResolver, PrivateTarget, TargetRules, TrustStore
from registry_spooler.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Buffer


CONNECT_SECONDS: Final = 20.0
"""For the TCP and TLS handshakes: a registry that takes longer is not there."""
HEAD_SECONDS: Final = 60.0
"""For the head of an answer, from when the request has been sent."""
BODY_SECONDS: Final = 60.0
"""For a body that is read whole, and as much again as it takes at the slowest rate."""
SLOWEST_BYTES_PER_SECOND: Final = 32 << 10
SILENCE_SECONDS: Final = 120.0
"""How long a transfer may stand still: in this time some MOVING_BYTES have to be received, or WRITE_BYTES be taken."""
MOVING_BYTES: Final = 16 << 10
INLINE_BYTES: Final = 64 << 10
"""Up to here a body at hand goes out with the head; a larger one is written piece by piece, and watched."""
CONNECTIONS: Final = 64
"""Far more than there are jobs times layers in flight: a bound against leaks, not a throttle."""
KEEP_ALIVE_SECONDS: Final = 30.0
WRITE_BYTES: Final = 256 << 10
"""Given to a connection at once: the event loop keeps a copy of what the socket has no room for."""
HEADER_BYTES: Final = 64 << 10
"""Of one header: signed Locations are long."""
ANSWER_BYTES: Final = 8 << 20
"""The most that is read of an answer's body at once; a manifest has at most 4 MiB."""

USER_AGENT: Final = f"registry-spooler/{__version__}"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_URL: Final = re.compile(r"https?://[^\s'\")]+")

BodyPieces = Callable[[], AsyncGenerator["Buffer"]]


class StreamedBody(aiohttp.Payload):
    """A body that is written piece by piece as it comes, with flow control: nothing is copied into one body.

    `length` is in bytes; None uses HTTP's chunked coding. `waiting` is the wait for the answer: its deadline is lifted
    while the body is being sent, and counted from then.
    """

    _autoclose = True

    def __init__(self, pieces: BodyPieces, length: int | None) -> None:
        super().__init__(pieces, content_type=None)
        self._pieces = pieces
        self._size = length
        self._request: Request | None = None
        self._waiting = anyio.CancelScope()

    def send_with(self, request: Request, waiting: anyio.CancelScope) -> StreamedBody:
        """Return the body itself, with the limits of a request: it may be sent more than once, one after the other."""
        self._request, self._waiting = request, waiting
        return self

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Refuse: a streamed body has no text."""
        raise TypeError("a streamed body has no text")

    async def write(self, writer: Any) -> None:
        """Write all of it."""
        await self.write_with_length(writer, self._size)

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        """Write all of it; OSError when nothing moves for too long."""
        assert self._request is not None
        self._consumed = True
        self._waiting.deadline = math.inf
        try:
            async with contextlib.aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    view = memoryview(piece)
                    for start in range(0, len(view), WRITE_BYTES):
                        async with asyncio.timeout(self._request.silence_seconds):
                            await writer.write(view[start : start + WRITE_BYTES])
        except ConnectionError:
            # A server that refuses may answer and close before it has read all. The answer says why, so
            # it is still waited for; when there is none, reading it fails by itself.
            return
        finally:
            self._waiting.deadline = anyio.current_time() + self._request.head_seconds


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Request:
    """One HTTP request; the URL goes out byte for byte as it stands here."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | StreamedBody | None = None
    head_seconds: float = HEAD_SECONDS
    silence_seconds: float = SILENCE_SECONDS
    is_redirected: bool = False
    """A redirect led here."""

    def __repr__(self) -> str:
        return f"<Request {self.method} {redact(self.url)}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer with its body (cut off at ANSWER_BYTES)."""

    request: Request
    status: int
    headers: CIMultiDictProxy[str] = field(repr=False)
    content: bytes = field(repr=False)
    logged_in_anew: bool = False
    """It was a 401, and the next request will have another login."""

    @property
    def url(self) -> str:
        """Where it came from; a relative `Location` is relative to this."""
        return self.request.url


class AnswerStream:
    """An answer whose body is still to be read."""

    def __init__(self, request: Request, response: aiohttp.ClientResponse, rules: TargetRules) -> None:
        self.request = request
        self._rules = rules
        self._response = response
        self.status = response.status
        self.headers = response.headers
        self.logged_in_anew = False
        self._whole: Answer | None = None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, at most PIECE_BYTES at a time; RegistryUnreachable when it breaks off or stands still."""
        left, moved = self.request.silence_seconds, 0
        body = self._response.content.iter_chunked(PIECE_BYTES)
        while True:
            with _translated(self.request, self._rules):
                began = anyio.current_time()
                with _deadline(self.request, self._rules, began + left):
                    piece = await anext(body, b"")
            if not piece:
                return
            moved += len(piece)
            left -= anyio.current_time() - began
            if moved >= MOVING_BYTES:
                left, moved = self.request.silence_seconds, 0
            yield piece

    async def finish(self, limit_bytes: int = ANSWER_BYTES) -> Answer:
        """Read the whole body; what is over the limit is left out, and the connection then closed."""
        if self._whole is not None:
            return replace(self._whole, logged_in_anew=self.logged_in_anew)
        content = b""
        if self.request.method != "HEAD" and self.status != 204:
            content = await self._read(limit_bytes)
        self._whole = Answer(
            request=self.request,
            status=self.status,
            headers=self.headers,
            content=content,
            logged_in_anew=self.logged_in_anew,
        )
        return self._whole

    async def _read(self, limit_bytes: int) -> bytes:
        parts = bytearray()
        until = anyio.current_time() + BODY_SECONDS
        with _translated(self.request, self._rules), _deadline(self.request, self._rules, until) as reading:
            async for piece in self._response.content.iter_any():
                parts += piece
                reading.deadline += len(piece) / SLOWEST_BYTES_PER_SECOND
                if len(parts) > limit_bytes:
                    self._response.close()
                    break
        return bytes(parts[:limit_bytes])


class Transport:
    """The connection pool of one registry, whose own origin is what a private CA is for."""

    def __init__(self, trust: TrustStore, rules: TargetRules) -> None:
        self._trust = trust
        self._rules = rules
        self._own = rules.registry
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool; nothing is connected yet."""
        connector = aiohttp.TCPConnector(
            limit=CONNECTIONS,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            resolver=JudgedResolver(self._rules),
            ttl_dns_cache=10,
            enable_cleanup_closed=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"},
            skip_auto_headers=("Content-Type",),
            read_bufsize=PIECE_BYTES // 4,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )

    async def aclose(self) -> None:
        """Close every connection; may be called twice."""
        session, self._session = self._session, None
        if session is not None:
            with anyio.CancelScope(shield=True):
                await session.close()

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AnswerStream]:
        """Send a request and hand over its answer as soon as the head of it is there."""
        response = await self._head(request)
        try:
            yield AnswerStream(request, response, self._rules)
        finally:
            # After a whole body this gives the connection back; otherwise it closes it.
            response.close() if not response.content.at_eof() else response.release()

    async def _head(self, request: Request) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the client is not open; use it in 'async with'")
        context = await self._context(request)
        until = anyio.current_time() + CONNECT_SECONDS + request.head_seconds
        with _translated(request, self._rules), _deadline(request, self._rules, until) as waiting:
            return await self._session.request(
                request.method,
                _url(request, self._rules),
                headers=CIMultiDict(request.headers),
                data=_payload(request, waiting),
                allow_redirects=False,
                ssl=context,
                timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS),
            )
        raise AssertionError("a deadline raises")

    async def _context(self, request: Request) -> ssl.SSLContext | bool:
        if request.url.startswith("http:"):
            return False
        return await self._trust.context(elsewhere=Origin.of(request.url).host != self._own.host)

    async def send(self, request: Request, *, limit_bytes: int = ANSWER_BYTES) -> Answer:
        """Send a request and read its whole answer."""
        async with self.stream(request) as answer:
            return await answer.finish(limit_bytes)


def redirect_location(answer: Answer | AnswerStream) -> str | None:
    """Return the `Location` of a redirect, unresolved; None for any other answer."""
    return (answer.headers.get("Location") or None) if answer.status in _REDIRECTS else None


def whole_number(text: str | None) -> int | None:
    """Return the decimal number in a header; None when there is none."""
    return int(text) if text is not None and _DIGITS.fullmatch(text) else None


def _payload(request: Request, waiting: anyio.CancelScope) -> bytes | StreamedBody | None:
    body = request.body
    if isinstance(body, bytes) and len(body) > INLINE_BYTES:
        body = StreamedBody(partial(one_piece, body), len(body))
    if isinstance(body, StreamedBody):
        return body.send_with(request, waiting)
    # An empty body needs no task to write it; the library says `Content-Length: 0` by itself.
    return body or None


async def one_piece(content: bytes) -> AsyncGenerator[bytes]:
    """Yield a body that is at hand."""
    yield content


def _url(request: Request, rules: TargetRules) -> URL:
    """The URL for the library; RegistryProtocolError should it read another host than the one that was judged."""
    origin = Origin.of(request.url)
    try:
        url = URL(request.url, encoded=True)
        same = (url.scheme, (url.raw_host or "").lower().removesuffix("."), url.port) == (
            origin.scheme,
            origin.host,
            origin.port,
        )
    except ValueError:
        same = False
    if not same:
        raise RegistryProtocolError(rules.show(str(origin)), f"a URL that cannot be used: {rules.show(request.url)}")
    return url


@contextlib.contextmanager
def _deadline(request: Request, rules: TargetRules, until: float) -> Iterator[anyio.CancelScope]:
    """Raise RegistryUnreachable when the block has not ended by then; its deadline may be moved."""
    with anyio.CancelScope(deadline=until) as scope:
        yield scope
    if scope.cancelled_caught:
        raise RegistryUnreachable(rules.show(str(Origin.of(request.url))), "it did not answer in time", timed_out=True)


class TransportFailure(Exception):
    """The library's own words on a failure, with its URLs redacted: they may be signed."""

    @classmethod
    def of(cls, exc: BaseException, rules: TargetRules) -> TransportFailure:
        """Describe the failure, with secrets hidden."""
        text = rules.secrets.hide(_URL.sub(lambda match: rules.show(match[0]), str(exc)))
        return cls(f"{type(exc).__name__}: {text}"[:500])


@contextlib.contextmanager
def _translated(request: Request, rules: TargetRules) -> Iterator[None]:
    """Make the library's errors ours; no foreign text goes out unless it is known to hold no secret."""
    try:
        yield
    except (aiohttp.ClientError, OSError, EOFError) as exc:
        origin = str(Origin.of(request.url))
        shown, url = rules.show(origin), rules.show(request.url)
        if isinstance(exc, aiohttp.InvalidURL):
            raise RegistryProtocolError(shown, f"a URL that cannot be used: {url}") from None
        if isinstance(exc, aiohttp.ClientConnectorError) and isinstance(exc.os_error, PrivateTarget):
            raise RegistryProtocolError(
                shown, f"the registry leads to {url}, which is refused: its name has a private address"
            ) from None
        failure = TransportFailure.of(exc, rules)
        timed_out = isinstance(exc, TimeoutError)
        raise RegistryUnreachable(shown, connection_reason(exc, origin), timed_out=timed_out) from failure
