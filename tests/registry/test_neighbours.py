"""Whose fault it is: what stands in a registry's place for a while is never taken for a registry.

Whatever such a neighbour answers, at whatever it is asked, the error is temporary; and nothing that it says counts as
done, as there, or as gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import orjson
import pytest
from aiohttp import web

from registry_spooler.backoff import Backoff
from registry_spooler.errors import (
    AccessDenied,
    DigestNotSupported,
    NotFound,
    RegistryAnswer,
    RegistryError,
    RegistryProtocolError,
    SpoolerError,
)
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import EMPTY_JSON, Digest
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.registry.auth.credentials import CredentialSettings, CredentialSource
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from support.registries.lyingserver import Answer, body_of, lying, page
from support.registries.memory_blobs import Blob, noise
from support.registries.playedregistry import TokenServer, running_registry, running_token_server

QUICK = RetryPolicy(tries=2, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01))
DIGEST = Digest.of(EMPTY_JSON)
POINTER = {"mediaType": mediatype.OCI_CONFIG, "digest": str(DIGEST), "size": 2}
MANIFEST = Manifest.parse(
    orjson.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": POINTER, "layers": []})
)
TAG, BY_DIGEST = Reference("a/b", "tag"), Reference("a/b", None, MANIFEST.digest)
HTML = "Content-Type: text/html; charset=utf-8\r\n"
MARK = "Docker-Distribution-Api-Version: registry/2.0\r\n"


def says(status: int, headers: str = "", body: bytes = b"") -> Answer:
    """Says the same to everything."""

    async def answer(head, reader, writer):
        await body_of(head, reader)
        whole = page(status, headers, body)
        writer.write(whole[: -len(body)] if body and head.startswith("HEAD") else whole)

    return answer


def raw(content: bytes) -> Answer:
    async def answer(head, reader, writer):
        await body_of(head, reader)
        writer.write(content)
        await writer.drain()
        writer.close()

    return answer


NEIGHBOURS: dict[str, Answer] = {
    "a web page for everything": says(200, HTML, b"<html>It works!</html>"),
    "200 for everything": says(200),
    "JSON for everything": says(200, "Content-Type: application/json\r\n", b'{"status":"ok"}'),
    "garbage for everything": says(200, "Content-Type: application/json\r\n", b"\xff{[1e999"),
    "201 for everything": says(201, "Location: /somewhere\r\n"),
    "202 for everything": says(202, "Location: /somewhere\r\n"),
    "204 for everything": says(204),
    "a page that is not found": says(404, HTML, b"<html>404</html>"),
    "a page that is not found, with a proxy's mark": says(404, HTML + MARK, b"<html>404</html>"),
    "nothing is found": says(404),
    "everything is bad": says(400, "", b"Bad Request"),
    "nothing is allowed": says(405),
    "forbidden": says(403, HTML, b"<html>forbidden</html>"),
    "forbidden by something that speaks like a registry": says(403, MARK, b'{"errors":[{"code":"DENIED"}]}'),
    "a login for a page": says(401, 'WWW-Authenticate: Basic realm="Intranet"\r\n'),
    "a login for nobody": says(401),
    "a token server that is no URL": says(401, 'WWW-Authenticate: Bearer realm="http://a..b/"\r\n'),
    "a redirect to itself": says(307, "Location: /v2/\r\n"),
    "a redirect to no URL": says(307, "Location: http://a..b/\r\n"),
    "a redirect to too long a name": says(308, f"Location: http://{'a' * 64}.example/\r\n"),
    "a redirect to nowhere": says(302),
    "a redirect to letters": says(301, "Location: http://\u00e9t\u00e9.example/\r\n"),
    "a redirect that is cut": says(303, "Location: http://[::1\r\n"),
    "an upload at no URL": says(202, "Location: http://a..b/\r\n"),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nothing": raw(b""),
    "a header without end": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000),
    "a status that is none": raw(b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n"),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "a coding that is none": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "numbers without end": says(
        202, f"Location: /u\r\nOCI-Chunk-Min-Length: {'9' * 5000}\r\nRange: 0-{'9' * 5000}\r\n"
    ),
}

Ask = Callable[[RegistryClient], Awaitable[object]]


async def _listed(names) -> list[str]:
    return [name async for name in names]


async def _put_manifest_and_confirm(client: RegistryClient) -> object:
    await client.put_manifest(TAG, MANIFEST)
    found = await client.head_manifest(TAG)
    assert found is not None
    assert found.digest == MANIFEST.digest
    return found


QUESTIONS: dict[str, Ask] = {
    "ping": lambda client: client.ping(),
    "head": lambda client: client.head_manifest(TAG),
    "get": lambda client: client.get_manifest(TAG),
    "get by digest": lambda client: client.get_manifest(BY_DIGEST),
    "put": _put_manifest_and_confirm,
    "delete": lambda client: client.delete_tag(TAG),
    "delete by digest": lambda client: client.delete_digest(BY_DIGEST),
    "tags": lambda client: _listed(client.list_tags("a/b")),
    "catalog": lambda client: _listed(client.list_repositories()),
    "referrers": lambda client: client.list_referrers("a/b", DIGEST),
    "bytes": lambda client: client.get_bytes("a/b", DIGEST, limit_bytes=100),
}


@pytest.mark.parametrize(("neighbour", "question"), list(itertools.product(NEIGHBOURS, QUESTIONS)))
async def test_nothing_is_believed_and_no_file_is_at_fault(neighbour, question):
    async with lying(NEIGHBOURS[neighbour]) as url, RegistryClient(url, retry=QUICK) as client:
        if (neighbour, question) == ("JSON for everything", "tags"):
            assert await QUESTIONS[question](client) == []  # who reads a list judges it
            return
        if (neighbour, question) == ("JSON for everything", "catalog"):
            return
        with pytest.raises(SpoolerError) as caught:
            await QUESTIONS[question](client)
    assert caught.value.temporary, caught.value


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("size", [2, 3 << 20])
async def test_no_push_succeeds_and_no_file_is_at_fault(neighbour, size):
    blob = Blob(noise(size))
    async with lying(NEIGHBOURS[neighbour]) as url, RegistryClient(url, retry=QUICK) as client:
        with pytest.raises(SpoolerError) as caught:
            await client.mount_blob("a/b", blob.digest, "c")
            await client.put_blob("a/b", blob.opener, Progress())
            await client.put_bytes("a/b", EMPTY_JSON)
            await _put_manifest_and_confirm(client)
    assert caught.value.temporary, caught.value


def _lies() -> dict[str, Callable[[], web.StreamResponse]]:
    """Answers that no registry gives, to one of several questions."""
    return {
        "200": lambda: web.Response(status=200),
        "200 with a page": lambda: web.Response(status=200, text="<html>", content_type="text/html"),
        "201": lambda: web.Response(status=201),
        "202": lambda: web.Response(status=202),
        "202 with numbers": lambda: web.Response(
            status=202, headers={"Location": "/v2/u", "Range": f"0-{'9' * 3000}", "OCI-Chunk-Min-Length": "9" * 3000}
        ),
        "another digest": lambda: web.Response(status=201, headers={"Docker-Content-Digest": "sha256:" + "0" * 64}),
        "no digest": lambda: web.Response(status=201, headers={"Docker-Content-Digest": "sha256:xyz"}),
        "204": lambda: web.Response(status=204),
        "206": lambda: web.Response(status=206, text="x"),
        "302": lambda: web.Response(status=302),
        "302 to itself": lambda: web.Response(status=302, headers={"Location": ""}),
        "307 to no URL": lambda: web.Response(status=307, headers={"Location": "http://a..b/"}),
        "307 to a login": lambda: web.Response(status=307, headers={"Location": "/login"}),
        "a Location that is none": lambda: web.Response(status=202, headers={"Location": "http://[::1"}),
        "503 for a while": lambda: web.Response(status=503, headers={"Retry-After": "0"}),
        "a date that is none": lambda: web.Response(status=503, headers={"Retry-After": "Thu, 99 Foo 99999 99:99:99"}),
        "507": lambda: web.Response(status=507),
    }


@pytest.mark.parametrize("lie", _lies())
@pytest.mark.parametrize("at", ["POST /uploads", "PATCH /uploads", "PUT /uploads", "GET /uploads", "HEAD /blobs",
                                "PUT /manifests", "HEAD /manifests", "GET /manifests"])  # fmt: skip
async def test_one_lie_among_good_answers_is_no_files_fault_and_no_false_success(at, lie):
    method, part = at.split(" /")
    blob = Blob(noise(3 << 20))

    def gate(request: web.Request) -> web.StreamResponse | None:
        is_upload = "/uploads/" in request.path
        fits = request.method == method and (is_upload if part == "uploads" else f"/{part}/" in request.path)
        return _lies()[lie]() if fits else None

    async with running_registry(gate=gate) as registry, RegistryClient(registry.url, retry=QUICK) as client:
        try:
            await client.mount_blob("a/b", blob.digest, "c")
            if await client.blob_exists("a/b", blob.digest) is None:
                await client.put_blob("a/b", blob.opener, Progress())
            await client.put_bytes("a/b", EMPTY_JSON)
            await _put_manifest_and_confirm(client)
        except SpoolerError as error:
            assert error.temporary, error
        else:
            assert registry.manifests["a/b", "tag"][1] == MANIFEST.content
            assert {str(blob.digest), str(DIGEST)} <= registry.blobs.keys()


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
async def test_a_blob_is_not_there_because_a_neighbour_says_so(neighbour):
    """None makes it be sent, which is safe; a size would leave it out."""
    async with lying(NEIGHBOURS[neighbour]) as url, RegistryClient(url, retry=QUICK) as client:
        try:
            size = await client.blob_exists("a/b", DIGEST)
        except RegistryError as error:
            assert error.temporary
        else:
            assert size is None


DENIED = {"errors": [{"code": "DENIED", "message": "not yours"}]}


def _refusing(status: int, *, at: str = "POST", mark: bool = True):
    def gate(request: web.Request) -> web.StreamResponse | None:
        if request.method != at:
            return None
        return web.json_response(DENIED, status=status) if mark else web.Response(status=status, text="no")

    return gate


@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 413, 415, 422])
async def test_a_registry_that_refuses_this_image_is_believed(status, mark):
    for at in ("POST", "PUT"):
        refusing = running_registry(gate=_refusing(status, at=at, mark=mark))
        async with refusing as registry, RegistryClient(registry.url, retry=QUICK) as client:
            with pytest.raises(RegistryAnswer) as caught:
                if at == "POST":
                    await client.put_bytes("a/b", EMPTY_JSON)
                else:
                    await client.put_manifest(TAG, MANIFEST)
        assert status == caught.value.status
        assert not caught.value.temporary


async def test_a_neighbour_that_leaves_between_two_questions_costs_nothing():
    """The refusal was its own; by the time that it is asked who it is, the registry is back."""
    answers = iter([web.Response(status=404, text="not here")])

    async with running_registry(gate=lambda request: next(answers, None)) as registry:
        registry.manifests["a/b", "tag"] = (MANIFEST.media_type, MANIFEST.content)
        async with RegistryClient(registry.url, retry=QUICK) as client:
            found = await client.head_manifest(TAG)
    assert found is not None
    assert found.digest == MANIFEST.digest


async def test_a_login_that_is_taken_elsewhere_and_not_here_is_this_images_failure():
    server = TokenServer(username="user", password="pass")

    def gate(request: web.Request) -> web.StreamResponse | None:
        if (answer := server.gate(request)) is not None or request.method != "POST":
            return answer
        challenge = f'Bearer realm="{server.url}/token",service="s",error="insufficient_scope"'
        return web.json_response(DENIED, status=401, headers={"WWW-Authenticate": challenge})

    source = CredentialSource(CredentialSettings(username="user", password="pass"))
    async with running_token_server(server), running_registry(gate=gate) as registry:
        async with RegistryClient(registry.url, credentials=source, retry=QUICK) as client:
            with pytest.raises(AccessDenied, match="takes this login, but not for this repository") as caught:
                await client.put_bytes("a/b", EMPTY_JSON)
        assert not caught.value.temporary
        server.username = ""
        async with RegistryClient(registry.url, retry=QUICK) as client:
            with pytest.raises(AccessDenied) as caught:
                await client.put_bytes("a/b", EMPTY_JSON)
        assert caught.value.temporary  # nobody has logged in


@pytest.mark.parametrize("status", [201, 304, 400, 404, 405, 500])
async def test_a_token_server_that_gives_out_nothing_says_nothing_of_images(status):
    def gate(request: web.Request) -> web.StreamResponse | None:
        return web.json_response(DENIED, status=401, headers={"WWW-Authenticate": f'Bearer realm="{url}"'})

    async with (
        lying(says(status)) as url,
        running_registry(gate=gate) as registry,
        RegistryClient(registry.url, retry=QUICK) as client,
    ):
        for ask in (client.head_manifest, client.get_manifest, client.delete_tag):
            with pytest.raises(RegistryError) as caught:
                await ask(TAG)
            assert caught.value.temporary
            assert not isinstance(caught.value, NotFound)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_server_that_refuses_the_login_is_no_files_fault(status):
    server = TokenServer(username="user", password="pass")

    def gate(request: web.Request) -> web.StreamResponse | None:
        challenge = f'Bearer realm="{url}",service="s"'
        return web.json_response(DENIED, status=401, headers={"WWW-Authenticate": challenge})

    source = CredentialSource(CredentialSettings(username="user", password="wrong"))
    async with (
        lying(says(status)) as url,
        running_registry(gate=gate) as registry,
        RegistryClient(registry.url, credentials=source, retry=QUICK) as client,
    ):
        with pytest.raises(AccessDenied) as caught:
            await client.put_bytes("a/b", EMPTY_JSON)
    assert server.asked == []
    assert caught.value.temporary


async def test_a_login_that_is_refused_everywhere_with_403_is_no_files_fault():
    refusing = running_registry(gate=lambda _: web.json_response(DENIED, status=403))
    async with refusing as registry, RegistryClient(registry.url, retry=QUICK) as client:
        with pytest.raises(AccessDenied) as caught:
            await client.put_bytes("a/b", EMPTY_JSON)
    assert caught.value.temporary


async def test_a_storage_that_refuses_is_told_as_such_and_a_blob_there_is_sent_again():
    """A URL that is signed for GET alone: HEAD is refused by the storage, and our login has nothing to do with it."""
    async with lying(says(403, "Content-Type: application/xml\r\n", b"<Error/>")) as storage:

        def gate(request: web.Request) -> web.StreamResponse | None:
            away = "/blobs/sha256" in request.path
            return web.Response(status=307, headers={"Location": f"{storage}/x?sig=1"}) if away else None

        async with running_registry(gate=gate) as registry, RegistryClient(registry.url, retry=QUICK) as client:
            assert await client.blob_exists("a/b", DIGEST) is None
            with pytest.raises(RegistryAnswer, match=f"another server answered 403 to GET {storage}/x") as caught:
                await client.get_bytes("a/b", DIGEST, limit_bytes=10)
    assert "credentials" not in str(caught.value)
    assert caught.value.temporary


async def test_digests_that_a_registry_does_not_store_are_told_as_such(registry, repository):
    """Distribution stores a blob that is sent by its sha512 under its sha256."""
    digest = Digest("sha512", "0" * 128)
    async with RegistryClient(registry.url, retry=QUICK) as client:
        upload = await client.begin_upload(repository)
        with pytest.raises(DigestNotSupported, match="does not store content under sha512 digests") as caught:
            await upload.commit(digest)
        await upload.cancel()
        await client.put_bytes(repository, EMPTY_JSON)
        with pytest.raises(DigestNotSupported):
            await client.put_manifest(Reference(repository, None, digest), MANIFEST)
    assert not caught.value.temporary


async def test_what_is_not_there_is_still_not_there(registry, repository):
    async with RegistryClient(registry.url, retry=QUICK) as client:
        assert await client.head_manifest(Reference(repository, "tag")) is None
        assert await client.delete_tag(Reference(repository, "tag")) is False
        assert await client.delete_digest(Reference(repository, None, DIGEST)) is False
        with pytest.raises(NotFound):
            await client.get_manifest(Reference(repository, "tag"))
        await client.ping()


async def test_a_web_page_says_so_in_its_error():
    async with lying(NEIGHBOURS["a web page for everything"]) as url, RegistryClient(url, retry=QUICK) as client:
        with pytest.raises(RegistryProtocolError, match=r"does not answer as a registry does: .*a web page"):
            await client.ping()
