"""A registry in memory that behaves like any other, and a token server that checks what it is asked.

The uploads follow the distribution specification; `Behaviour` says where a product does not. The facts are those
that users and maintainers of these products have reported.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, parse_qsl

from aiohttp import web

MIB = 1 << 20
OUT_OF_RANGE = 416
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True)
class Behaviour:
    """How a registry takes uploads."""

    patch_status: int = 202
    ranged: bool = True
    """False: a PATCH with Content-Range is refused."""
    chunked_coding: bool = True
    ranged_max_bytes: int | None = None
    body_max_bytes: int | None = None
    smallest_part_bytes: int = 0
    minimum_header: int | None = None
    second_stream: bool = True
    """May a PATCH without Content-Range come second?"""
    range_of_patch: Callable[[int, int], str | None] = lambda first, now: f"0-{max(0, now - 1)}"
    """From the size after the first chunk and the size now."""
    range_of_status: Callable[[int], str] = lambda size: f"0-{max(0, size - 1)}"
    status_has_location: bool = True
    status: bool = True
    relative_location: bool = False
    signed_location: bool = False
    """Does every Location carry a state that makes the ones before it invalid?"""
    patch: bool = True
    whole_put: bool = True
    mount_status: int = 202
    delete_tag_status: int = 202
    keeps_partial: bool = False
    """Does what arrived of a broken PATCH stay?"""
    stores_at_most: int | None = None
    """Bytes of a PATCH that are kept, though all are acknowledged."""


@dataclass
class Session:
    """An upload that is going on."""

    data: bytearray = field(default_factory=bytearray)
    first: int = 0
    state: int = 0
    patches: int = 0


@dataclass
class PlayedRegistry:
    """Use `running_registry`. `requests` has method, path and headers of everything that was asked."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    gate: Callable[[web.Request], web.StreamResponse | None] | None = None
    """Looks at each request first; an answer of its own ends the request, before its body is read."""
    prefix: str = ""
    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    _names: itertools.count[int] = field(default_factory=itertools.count)

    def count(self, method: str, path: str = "") -> int:
        return sum(1 for seen, target, _ in self.requests if seen == method and re.search(path, target))

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, request.raw_path, headers))
        if self.gate is not None and (answer := self.gate(request)) is not None:
            return answer
        answer = await handler(request)
        answer.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
        return answer

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.watch], client_max_size=1 << 30)
        uploads = "/v2/{name:.+}/blobs/uploads/{id}"
        app.router.add_get("/v2/", self._base)
        app.router.add_post("/v2/{name:.+}/blobs/uploads/", self._start)
        app.router.add_patch(uploads, self._patch)
        app.router.add_put(uploads, self._put)
        app.router.add_get(uploads, self._status)
        app.router.add_delete(uploads, self._cancel)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._blob)
        app.router.add_get("/v2/{name:.+}/manifests/{reference}", self._get_manifest)
        app.router.add_put("/v2/{name:.+}/manifests/{reference}", self._put_manifest)
        app.router.add_delete("/v2/{name:.+}/manifests/{reference}", self._delete_manifest)
        return app

    async def _base(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _start(self, request: web.Request) -> web.Response:
        if "Content-Length" not in request.headers:
            return _error(411, "LENGTH_REQUIRED")
        if "mount" in request.query and self.behaviour.mount_status != 202:
            return web.Response(status=self.behaviour.mount_status)
        name = f"u{next(self._names)}"
        self.sessions[name] = Session()
        headers = {"Location": self._location(request, name), "Range": "0-0"}
        if self.behaviour.minimum_header is not None:
            headers["OCI-Chunk-Min-Length"] = str(self.behaviour.minimum_header)
        return web.Response(status=202, headers=headers)

    async def _patch(self, request: web.Request) -> web.Response:
        behaviour, session = self.behaviour, self._session(request)
        if not behaviour.patch:
            return _error(405, "UNSUPPORTED")
        if session is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        span = request.headers.get("Content-Range")
        if "Content-Length" not in request.headers and (span is not None or not behaviour.chunked_coding):
            return _error(400, "CONTENT_LENGTH_INVALID")
        if span is not None and (refusal := self._check_range(span, session)) is not None:
            return refusal
        if span is None and session.patches and not behaviour.second_stream:
            return _error(400, "BLOB_UPLOAD_INVALID")
        length = int(request.headers.get("Content-Length", "0"))
        if behaviour.body_max_bytes is not None and length > behaviour.body_max_bytes:
            return _error(413, "SIZE_INVALID")
        body = bytearray()
        try:
            async for piece in request.content.iter_any():
                body += piece
        except BaseException:
            session.data += body if behaviour.keeps_partial else b""
            raise
        session.data += body[: behaviour.stores_at_most]
        session.patches += 1
        session.first = session.first or len(session.data)
        headers = {"Location": self._location(request, request.match_info["id"])}
        if (text := behaviour.range_of_patch(session.first, len(session.data))) is not None:
            headers["Range"] = text
        return web.Response(status=behaviour.patch_status, headers=headers)

    def _check_range(self, span: str, session: Session) -> web.Response | None:
        match = re.fullmatch(r"(\d+)-(\d+)", span)
        if not self.behaviour.ranged or match is None:
            return _error(400, "BLOB_UPLOAD_INVALID")
        length = int(match[2]) - int(match[1]) + 1
        if self.behaviour.ranged_max_bytes is not None and length > self.behaviour.ranged_max_bytes:
            return _error(OUT_OF_RANGE, "REQUESTED_RANGE_NOT_SATISFIABLE")
        if int(match[1]) != len(session.data):
            return _error(OUT_OF_RANGE, "RANGE_INVALID")
        # A part that is too small shows when the next one comes.
        if session.patches and session.first < self.behaviour.smallest_part_bytes:
            return _error(400, "LayerPartTooSmallException")
        return None

    async def _put(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        body = await request.read()
        if body and not self.behaviour.whole_put:
            return _error(400, "BLOB_UPLOAD_INVALID")
        session.data += body
        digest = request.query["digest"]
        if digest != "sha256:" + hashlib.sha256(session.data).hexdigest():
            return _error(400, "DIGEST_INVALID")
        self.blobs[digest] = bytes(session.data)
        del self.sessions[request.match_info["id"]]
        return web.Response(status=201, headers={"Docker-Content-Digest": digest})

    async def _status(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session is None or not self.behaviour.status:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        headers = {"Range": self.behaviour.range_of_status(len(session.data))}
        if self.behaviour.status_has_location:
            headers["Location"] = self._location(request, request.match_info["id"])
        return web.Response(status=204, headers=headers)

    async def _cancel(self, request: web.Request) -> web.Response:
        self.sessions.pop(request.match_info["id"], None)
        return web.Response(status=204)

    async def _blob(self, request: web.Request) -> web.Response:
        content = self.blobs.get(request.match_info["digest"])
        return _error(404, "BLOB_UNKNOWN") if content is None else web.Response(body=content)

    async def _get_manifest(self, request: web.Request) -> web.Response:
        found = self.manifests.get((request.match_info["name"], request.match_info["reference"]))
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN")
        digest = "sha256:" + hashlib.sha256(found[1]).hexdigest()
        return web.Response(body=found[1], headers={"Content-Type": found[0], "Docker-Content-Digest": digest})

    async def _put_manifest(self, request: web.Request) -> web.Response:
        body = await request.read()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        for reference in {request.match_info["reference"], digest}:
            self.manifests[request.match_info["name"], reference] = (request.headers["Content-Type"], body)
        return web.Response(status=201, headers={"Docker-Content-Digest": digest})

    async def _delete_manifest(self, request: web.Request) -> web.Response:
        key = request.match_info["name"], request.match_info["reference"]
        if not key[1].startswith("sha256:") and self.behaviour.delete_tag_status != 202:
            return _error(self.behaviour.delete_tag_status, "UNSUPPORTED")
        return web.Response(status=404 if self.manifests.pop(key, None) is None else 202)

    def _session(self, request: web.Request) -> Session | None:
        session = self.sessions.get(request.match_info["id"])
        if session is None or not self.behaviour.signed_location:
            return session
        return session if request.query.get("_state") == f"a+b/c%{session.state}" else None

    def _location(self, request: web.Request, name: str) -> str:
        path = f"/v2/{request.match_info['name']}/blobs/uploads/{name}"
        if self.behaviour.signed_location:
            self.sessions[name].state += 1
            path += f"?_state=a%2Bb%2Fc%25{self.sessions[name].state}"
        return path if self.behaviour.relative_location else f"{self.url}{path}"


def _error(status: int, code: str, message: str = "") -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)


@asynccontextmanager
async def served(application: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve an application on a free port; gives its URL."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running_registry(
    behaviour: Behaviour | None = None, gate: Callable[[web.Request], web.StreamResponse | None] | None = None
) -> AsyncIterator[PlayedRegistry]:
    """A registry with these behaviour."""
    registry = PlayedRegistry(behaviour or Behaviour(), gate)
    async with served(registry.application()) as url:
        registry.url = url
        yield registry


@dataclass
class TokenServer:
    """Gives tokens to who knows the password, or to everybody when there is none. `asked` is what it was asked."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    oauth: bool = True
    plain: bool = True
    uses: int | None = None
    """How many requests a token is good for."""
    extra: dict[str, object] = field(default_factory=dict)
    url: str = ""
    asked: list[tuple[str, dict[str, list[str]], str]] = field(default_factory=list)
    """Method, parameters, and what `Authorization` said."""
    tokens: dict[str, list[str]] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/token", self._get)
        app.router.add_post("/token", self._post)
        return app

    def gate(self, request: web.Request) -> web.StreamResponse | None:
        """For a registry: lets requests with a good token through."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.used[token] = self.used.get(token, 0) + 1
        if token in self.tokens and (self.uses is None or self.used[token] <= self.uses):
            return None
        scope = ""
        if match := re.match(r"/v2/(.+)/(?:blobs|manifests|tags)/", request.path):
            scope = f',scope="repository:{match[1]}:pull{"" if request.method in {"GET", "HEAD"} else ",push"}"'
        challenge = f'Bearer realm="{self.url}/token?keep=this",service="played"{scope}'
        return web.json_response(
            {"errors": [{"code": "UNAUTHORIZED"}]}, status=401, headers={"WWW-Authenticate": challenge}
        )

    async def _get(self, request: web.Request) -> web.Response:
        said = request.headers.get("Authorization", "")
        self.asked.append(("GET", parse_qs(request.query_string), said))
        expected = "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if not self.plain:
            return web.Response(status=405)
        if self.username and said != expected:
            return web.json_response({"details": f"wrong login {said}"}, status=401)
        return self._grant(request.query.getall("scope", []))

    async def _post(self, request: web.Request) -> web.Response:
        form = dict(parse_qsl(await request.text()))
        self.asked.append(("POST", {key: [value] for key, value in form.items()}, ""))
        if not self.oauth:
            return web.Response(status=404)
        by_password = form.get("password") == self.password and form.get("username") == self.username
        if form["grant_type"] == "password" and not by_password:
            return web.Response(status=401)
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.identity_token:
            return web.Response(status=401)
        return self._grant(form.get("scope", "").split())

    def _grant(self, scopes: list[str]) -> web.Response:
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = scopes
        return web.json_response({"token": token, **self.extra})


@asynccontextmanager
async def running_token_server(server: TokenServer) -> AsyncIterator[TokenServer]:
    """Serve it."""
    async with served(server.application()) as url:
        server.url = url
        yield server
