"""Requests to the API server: the one module of this package that knows aiohttp.

A few kinds are enough: read, create, patch or delete a JSON object, read a log as it grows, and dial an exec. A request
that is answered 401 is tried once more after the login has been renewed, since tokens expire while a terminal stays
open.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from registry_spooler.kubernetes.cluster_errors import ExecNotSupported, KubeAnswer, KubeUnreachable, answer_error
from registry_spooler.kubernetes.config import ClusterLogin
from registry_spooler.kubernetes.frames import SUBPROTOCOL
from registry_spooler.registry.http.retry import connection_reason
from registry_spooler.version import __version__

CONNECT_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 60.0
"""For an object; an exec or a log may take as long as it likes."""
ANSWER_LIMIT_BYTES: Final = 16 << 20
"""A list of pods is far smaller."""
MESSAGE_LIMIT_BYTES: Final = 4 << 20
"""One message of an exec. Servers cut at 32 KiB; this only bounds what a broken one makes us hold."""

LINE_LIMIT_BYTES: Final = 1 << 20
"""A log's line, before it is handed on as it is."""

USER_AGENT: Final = f"kubectl-spool/{__version__}"
"""Audit logs show it."""

Query = Sequence[tuple[str, str]]

_CONTENT_TYPES: Final = {"POST": "application/json", "PATCH": "application/strategic-merge-patch+json"}


class Cluster:
    """A session with one API server, as one user. An async context manager; the constructor opens nothing."""

    def __init__(self, login: ClusterLogin) -> None:
        self._login = login
        self._stack = AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None
        self._granted: set[str] = set()
        """The permissions that were found to be there."""

    @property
    def namespace(self) -> str:
        """The namespace that all requests are made in."""
        return self._login.namespace

    @property
    def pods_path(self) -> str:
        """The path of the namespace's pods."""
        return f"/api/v1/namespaces/{quote(self.namespace, safe='')}/pods"

    @property
    def server(self) -> str:
        """The API server, for people: neither user nor query."""
        url = URL(self._login.server)
        return str(url.with_user(None).with_query(None))

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        headers = {"User-Agent": USER_AGENT}
        session = aiohttp.ClientSession(timeout=timeout, auto_decompress=True, trust_env=True, headers=headers)
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        await self._stack.aclose()

    async def get_json(self, path: str, query: Query = (), *, asked: str, permission: str = "") -> dict[str, Any]:
        """Read one object. KubeAnswer for a refusal, KubeUnreachable for no answer."""
        return await self._json("GET", path, query, asked=asked, permission=permission)

    async def create(self, path: str, document: Mapping[str, Any], *, asked: str, permission: str) -> dict[str, Any]:
        """Create an object in the collection at `path`, and return it as the server made it. Errors as `get_json`."""
        return await self._json("POST", path, asked=asked, permission=permission, document=document)

    async def patch(
        self, path: str, document: Mapping[str, Any], query: Query = (), *, asked: str, permission: str
    ) -> dict[str, Any]:
        """Merge a document into an object, strategically, and return what came of it. Errors as `get_json`.

        https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
        """
        return await self._json("PATCH", path, query, asked=asked, permission=permission, document=document)

    async def delete(self, path: str, query: Query = (), *, asked: str, permission: str) -> None:
        """Delete an object; KubeNotFound when it is gone already. Errors as `get_json`."""
        await self._json("DELETE", path, query, asked=asked, permission=permission)

    async def _json(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        asked: str,
        permission: str,
        document: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        async with self._request(
            method, path, query, asked=asked, permission=permission, seconds=ANSWER_SECONDS, document=document
        ) as response:
            content = await response.content.read(ANSWER_LIMIT_BYTES)
            while not response.content.at_eof() and len(content) < ANSWER_LIMIT_BYTES:
                content += await response.content.read(ANSWER_LIMIT_BYTES - len(content))
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError as exc:
            raise KubeUnreachable(self.server, "what answers is no API server") from exc
        if not isinstance(answer, dict):
            raise KubeUnreachable(self.server, "what answers is no API server")
        return answer

    async def read_lines(
        self, path: str, query: Query = (), *, asked: str, permission: str = ""
    ) -> AsyncIterator[bytes]:
        """Read lines as they come, for as long as they come; a very long one comes in pieces."""
        async with self._request("GET", path, query, asked=asked, permission=permission, seconds=None) as response:
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield line
                if len(rest) > LINE_LIMIT_BYTES:
                    yield rest
                    rest = b""
            if rest:
                yield rest

    @asynccontextmanager
    async def dial(
        self, path: str, query: Query, *, asked: str, permission: str
    ) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
        """Open the WebSocket of an exec, which is a GET with an upgrade; closed on the way out.

        ExecNotSupported when the server does not know the subprotocol.
        """
        socket = await self._dial(path, query, asked, permission)
        try:
            yield socket
        finally:
            # What is in flight is of no use to anybody: whoever leaves has the status, or has given up.
            await socket.close()

    async def _dial(self, path: str, query: Query, asked: str, permission: str) -> aiohttp.ClientWebSocketResponse:
        for renewed in (False, True):
            try:
                socket: aiohttp.ClientWebSocketResponse = await self._opened.ws_connect(
                    self._url(path, query),
                    protocols=(SUBPROTOCOL,),
                    headers=await self._login.headers(),
                    max_msg_size=MESSAGE_LIMIT_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                    **self._transport,
                )
                if socket.protocol != SUBPROTOCOL:
                    await socket.close()
                    raise ExecNotSupported(self.server)
                self._granted.add(permission)
                return socket
            except aiohttp.WSServerHandshakeError as exc:
                if exc.status == 401 and not renewed:
                    await self._login.renew()
                    continue
                message = await self._why(path, query, exc.status)
                raise self._refusal(exc.status, asked, message, permission) from exc
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise KubeUnreachable(self.server, _reason(exc, self.server)) from exc
        raise AssertionError("unreachable")

    async def _why(self, path: str, query: Query, status: int) -> str:
        """What the server says to a refused upgrade: aiohttp keeps no body, so the same is asked without one."""
        try:
            async with self._opened.get(
                self._url(path, query),
                headers=await self._login.headers(),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
                **self._transport,
            ) as response:
                return _message(await response.content.read(1 << 16)) if response.status == status else ""
        except (aiohttp.ClientError, TimeoutError, OSError):
            return ""

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Query,
        *,
        asked: str,
        permission: str,
        seconds: float | None,
        document: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        content = orjson.dumps(document) if document is not None else None
        typed = {"Content-Type": _CONTENT_TYPES[method]} if content is not None else {}
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            for renewed in (False, True):
                async with self._opened.request(
                    method,
                    self._url(path, query),
                    headers={**await self._login.headers(), **typed},
                    data=content,
                    timeout=timeout,
                    **self._transport,
                ) as response:
                    if response.status == 401 and not renewed:
                        await self._login.renew()
                        continue
                    if not 200 <= response.status < 300:
                        message = _message(await response.content.read(1 << 16))
                        raise self._refusal(response.status, asked, message, permission)
                    self._granted.add(permission)
                    yield response
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise KubeUnreachable(self.server, _reason(exc, self.server)) from exc

    def _refusal(self, status: int, asked: str, message: str, permission: str) -> KubeAnswer:
        was_granted = permission in self._granted
        return answer_error(status, asked, self.namespace, message, permission=permission, was_granted=was_granted)

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the cluster's session is not open: use `async with`")
        return self._session

    @property
    def _transport(self) -> Mapping[str, Any]:
        options: dict[str, Any] = {"proxy": self._login.proxy, "server_hostname": self._login.server_hostname}
        if self._login.tls is not None:
            options["ssl"] = self._login.tls
        return options

    def _url(self, path: str, query: Query) -> URL:
        return URL(self._login.server + path, encoded=True).with_query(list(query))


def _message(content: bytes) -> str:
    """The sentence of a `Status` object; empty when it is none."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    return str(document.get("message") or "") if isinstance(document, dict) else ""


def _reason(exc: Exception, server: str) -> str:
    """Why there is no answer. A registry's hints on TLS name options that are the kubeconfig's here."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({exc.certificate_error})"
    cause = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason or cause})"
    return connection_reason(exc, server)
