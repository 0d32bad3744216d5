"""Where credentials go, and where requests are not sent: each published leak is a test."""

from __future__ import annotations

import contextlib
from socket import AF_INET, AF_INET6, SOCK_STREAM

import pytest
from aiohttp import web

from registry_spooler.backoff import Backoff
from registry_spooler.errors import InvalidAddress, RegistryError, RegistryProtocolError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.registry.address import Origin, RegistryAddress, redact
from registry_spooler.registry.auth.credentials import CredentialSettings, CredentialSource
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.http.trust import JudgedResolver, PrivateTarget, TargetRules
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.vendors import UploadOptions
from support.registries.memory_blobs import Blob, noise
from support.registries.playedregistry import (
    PlayedRegistry,
    Session,
    TokenServer,
    running_registry,
    running_token_server,
    served,
)

MIB = 1 << 20
QUICK = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01))
SECRET = "s3cret-of-the-registry"


def _client(url: str) -> RegistryClient:
    source = CredentialSource(CredentialSettings(username="user", password=SECRET))
    return RegistryClient(url, credentials=source, retry=QUICK, upload_options=UploadOptions(chunk_size_bytes=MIB))


def _basic(request: web.Request) -> web.StreamResponse | None:
    if "Authorization" in request.headers:
        return None
    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})


def _headers(registry: PlayedRegistry) -> list[str | None]:
    return [headers.get("authorization") for _, _, headers in registry.requests]


@contextlib.asynccontextmanager
async def _two(gate=_basic):
    """A registry, and another server that it may send us to."""
    async with running_registry() as elsewhere, running_registry(gate=gate) as registry:
        yield registry, elsewhere


async def test_a_redirected_download_goes_without_credentials(repository):
    """GHSA-vh4v-2xq2-g5cg: Authorization kept on a redirect to another origin, a port being enough to be one."""
    blob = Blob(noise(2 * MIB))
    async with _two() as (registry, elsewhere):
        elsewhere.blobs[str(blob.digest)] = blob.content

        def gate(request: web.Request) -> web.StreamResponse | None:
            if request.method == "GET" and "/blobs/" in request.path and "Authorization" in request.headers:
                # A signed address, with characters that must arrive as they are.
                target = f"{elsewhere.url}{request.path}?X-Signature=a%2Bb%2F%3D+c&~x=(1)"
                return web.Response(status=307, headers={"Location": target})
            return _basic(request)

        registry.gate = gate
        async with _client(registry.url) as client, client.open_blob(repository, blob.digest) as pieces:
            assert b"".join([piece async for piece in pieces]) == blob.content
        assert _headers(elsewhere) == [None]
        assert elsewhere.requests[0][1].endswith("?X-Signature=a%2Bb%2F%3D+c&~x=(1)")


async def test_a_login_that_another_host_asks_for_is_not_given(repository):
    """CVE-2020-15157 (ContainerDrip): a foreign host that answers 401 gets no credentials."""
    async with _two() as (registry, elsewhere):
        elsewhere.gate = _basic

        def gate(request: web.Request) -> web.StreamResponse | None:
            if "Authorization" in request.headers:
                return web.Response(status=302, headers={"Location": elsewhere.url + request.path})
            return _basic(request)

        registry.gate = gate
        async with _client(registry.url) as client:
            with pytest.raises(RegistryError):
                await client.get_manifest(Reference(repository))
        assert _headers(elsewhere) == [None]


async def test_an_upload_elsewhere_goes_without_credentials(repository):
    """GHSA-jxpm-75mh-9fp7: Authorization sent to wherever an upload's Location leads."""
    blob = Blob(noise(3 * MIB))
    async with _two() as (registry, elsewhere):

        def gate(request: web.Request) -> web.StreamResponse | None:
            if request.method == "POST" and "Authorization" in request.headers:
                return web.Response(status=202, headers={"Location": f"{elsewhere.url}/v2/a/blobs/uploads/u?sig=%2B"})
            return _basic(request)

        registry.gate = gate
        elsewhere.sessions["u"] = Session()
        async with _client(registry.url) as client:
            await client.put_blob(repository, blob.opener, Progress())
        assert elsewhere.blobs == {str(blob.digest): blob.content}
        assert set(_headers(elsewhere)) == {None}


async def test_an_upload_elsewhere_that_wants_a_login_ends(repository):
    blob = Blob(noise(3 * MIB))
    async with _two() as (registry, elsewhere):
        elsewhere.gate = _basic

        def gate(request: web.Request) -> web.StreamResponse | None:
            if request.method == "POST" and "Authorization" in request.headers:
                return web.Response(status=202, headers={"Location": f"{elsewhere.url}/v2/a/blobs/uploads/u"})
            return _basic(request)

        registry.gate = gate
        async with _client(registry.url) as client:
            with pytest.raises(RegistryError, match="401"):
                await client.put_blob(repository, blob.opener, Progress())
        assert set(_headers(elsewhere)) == {None}


async def test_a_page_elsewhere_is_not_fetched(repository):
    async with _two() as (registry, elsewhere):

        def gate(request: web.Request) -> web.StreamResponse | None:
            if request.path.endswith("/tags/list") and "Authorization" in request.headers:
                link = f'<{elsewhere.url}/v2/{repository}/tags/list?last=a>; rel="next"'
                return web.json_response({"tags": ["a"]}, headers={"Link": link})
            return _basic(request)

        registry.gate = gate
        async with _client(registry.url) as client:
            with pytest.raises(RegistryProtocolError, match=r"the next page leads to .* on another host"):
                _ = [tag async for tag in client.list_tags(repository)]
        assert elsewhere.requests == []


async def test_the_password_does_not_follow_the_token_servers_redirect(repository):
    server = TokenServer()
    seen = []

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{server.url}/token?{request.query_string}")

    application = web.Application()
    application.router.add_get("/token", redirect)
    async with running_token_server(server), served(application) as first:

        def gate(request: web.Request) -> web.StreamResponse | None:
            seen.append(request.headers.get("Authorization"))
            if "Authorization" in request.headers:
                return None
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{first}/token"'})

        async with running_registry(gate=gate) as registry, _client(registry.url) as client:
            await client.blob_exists(repository, Digest.of(b""))
    assert [asked[2] for asked in server.asked] == [""]


async def test_layer_urls_are_never_fetched(repository):
    """Foreign layers: what a manifest's `urls` name is nothing that this client knows how to ask for."""
    async with _two() as (registry, elsewhere), _client(registry.url) as client:
        document = (
            b'{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:%s","size":2},"layers":[{"mediaType":'
            b'"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"sha256:%s","size":3,"urls":["%s"]}]}'
        ) % (b"a" * 64, b"b" * 64, elsewhere.url.encode())
        registry.manifests[repository, "latest"] = ("application/vnd.oci.image.manifest.v1+json", document)
        manifest = await client.get_manifest(Reference(repository))
        assert manifest.layers[0].is_foreign
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("registry", "target", "allowed"),
    [
        ("https://r.example", "https://storage.example/x", True),
        ("https://r.example", "/relative", True),
        ("https://r.example", "http://r.example/x", False),
        ("https://r.example", "http://storage.example/x", False),
        ("https://r.example", "https://127.0.0.1/x", False),
        ("https://r.example", "https://localhost/x", False),
        ("https://r.example", "https://a.localhost/x", False),
        ("https://r.example", "https://127.1/x", False),
        ("https://r.example", "https://2130706433/x", False),
        ("https://r.example", "https://0x7f000001/x", False),
        ("https://r.example", "https://[::1]/x", False),
        ("https://r.example", "https://[::ffff:127.0.0.1]/x", False),
        ("https://r.example", "https://0.0.0.0/x", False),
        ("https://r.example", "https://169.254.169.254/latest/meta-data", False),
        ("https://r.example", "https://[fe80::1]/x", False),
        ("https://r.example", "https://10.1.2.3/x", False),
        ("https://r.example", "https://192.168.1.1/x", False),
        ("https://r.example", "https://[fd00::1]/x", False),
        ("https://r.example", "ftp://storage.example/x", False),
        ("https://r.example", "https://user:pass@storage.example/x", False),
        ("https://10.0.0.1", "https://10.0.0.2/x", True),
        ("https://10.0.0.1", "https://127.0.0.1/x", False),
        ("https://10.0.0.1", "https://169.254.169.254/x", False),
        ("http://localhost:5000", "http://127.0.0.1:9000/x", True),
        ("http://localhost:5000", "http://10.0.0.9/x", True),
        ("http://registry.test", "https://storage.example/x", True),
        ("https://r.example", "https://r.example:8443/x", True),
        ("https://r.example", "https://127。0。0。1/x", False),
        ("https://r.example", "https://\uff11\uff12\uff17.0.0.1/x", False),
        ("https://r.example", "https://\uff4cocalhost/x", False),
        ("https://r.example", "https://local\u00adhost/x", False),
        ("https://r.example", "https://local\u200bhost/x", False),
        ("https://r.example", "https://%6cocalhost/x", False),
        ("https://r.example", "https://localhost./x", False),
        ("https://r.example", "https://storage.example\\@localhost/x", False),
        ("https://r.example", "https://a..b/x", False),
        ("https://r.example", "https://" + "a" * 64 + ".example/x", False),
        ("https://r.example", "https://storage.example:0/x", False),
        ("https://r.example", "https://storage.example:99999/x", False),
        ("https://r.example", "https://[::1/x", False),
        ("https://r.example", "https://[v1.x]/x", False),
        ("https://r.example", "https:///x", False),
        ("https://r.example", "https://storage.example/a b", False),
        ("https://r.example", "https://[64:ff9b::7f00:1]/x", False),
        ("https://r.example", "https://[64:ff9b::10.0.0.1]/x", False),
        ("https://r.example", "https://[64:ff9b::8.8.8.8]/x", True),
        ("https://r.example", "https://[64:ff9b:1::8.8.8.8]/x", False),
        ("https://r.example", "https://[2002:7f00:1::]/x", False),
        ("https://r.example", "https://[2002:a00:1::1]/x", False),
        ("https://r.example", "https://[::127.0.0.1]/x", False),
        ("https://r.example", "https://[2001:0:1:2:3:4:5:6]/x", False),
        ("https://r.example", "https://224.0.0.1/x", False),
        ("https://r.example", "https://100.64.0.1/x", False),
        ("https://r.example", "https://[2606:4700::1]/x", True),
    ],
)
def test_where_a_registry_may_send_us(registry, target, allowed):
    rules = TargetRules(Origin.of(registry))
    for check in (rules.redirect, rules.upload, rules.realm):
        if allowed:
            assert check(f"{registry}/v2/a", target).endswith(target)
        else:
            with pytest.raises(RegistryProtocolError):
                check(f"{registry}/v2/a", target)


NAMES = {
    "registry.test": ["127.0.0.1"],
    "inside.test": ["127.0.0.1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "nat64.test": ["64:ff9b::7f00:1"],
    "private.test": ["10.0.0.7"],
    "both.test": ["10.0.0.7", "127.0.0.1", "8.8.8.8"],
}


@pytest.fixture
def _names(monkeypatch):
    """Names with the addresses that some name server might give them."""

    def look_up(host, port, *_, **__):
        addresses = NAMES.get(host, [host])
        return [
            (AF_INET6, SOCK_STREAM, 6, "", (each, port, 0, 0))
            if ":" in each
            else (AF_INET, SOCK_STREAM, 6, "", (each, port))
            for each in addresses
        ]

    monkeypatch.setattr("socket.getaddrinfo", look_up)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("name", ["inside.test", "mapped.test", "metadata.test", "nat64.test"])
async def test_a_name_is_no_way_to_a_private_address(name):
    def away(request):
        if request.headers["Host"].startswith("registry.test"):
            return web.Response(status=307, headers={"Location": f"http://{name}:{port}/x"})
        return None

    async with running_registry(gate=away) as registry:
        port = registry.url.rpartition(":")[2]
        async with RegistryClient(f"http://registry.test:{port}", retry=QUICK) as client:
            with pytest.raises(RegistryProtocolError, match=f"leads to http://{name}:{port}/x, .* private address"):
                await client.blob_exists("a", Digest.of(b""))
        assert {headers["host"] for _, _, headers in registry.requests} == {f"registry.test:{port}"}
        async with RegistryClient(f"http://registry.test:{port}", retry=QUICK, allow_private_targets=True) as client:
            if name == "inside.test":
                assert await client.blob_exists("a", Digest.of(b"")) is None


@pytest.mark.usefixtures("_names")
async def test_of_a_names_addresses_those_are_used_that_may_be():
    public = JudgedResolver(TargetRules(Origin.of("https://r.example")))
    assert [found["host"] for found in await public.resolve("both.test")] == ["8.8.8.8"]
    with pytest.raises(PrivateTarget):
        await public.resolve("private.test")


@pytest.mark.usefixtures("_names")
async def test_a_registry_on_a_private_network_may_lead_to_others_there_by_name():
    resolver = JudgedResolver(TargetRules(Origin.of("https://private.test")))
    await resolver.resolve("private.test")
    assert {found["host"] for found in await resolver.resolve("both.test")} == {"10.0.0.7", "8.8.8.8"}
    with pytest.raises(PrivateTarget):
        await resolver.resolve("metadata.test")


def test_private_targets_can_be_allowed():
    rules = TargetRules(Origin.of("https://r.example"), allow_private=True)
    assert rules.realm("https://r.example/v2/", "https://10.1.2.3/token") == "https://10.1.2.3/token"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h:5000/v2/a/blobs/uploads/u?_state=abc%3D&digest=sha256:1", "https://h:5000/v2/a/blobs/uploads/u?_state=…&digest=sha256:1"),
        ("https://user:secret@h/v2/", "https://h/v2/"),
        ("https://s3/x?X-Amz-Signature=1&X-Amz-Credential=2", "https://s3/x?X-Amz-Signature=…&X-Amz-Credential=…"),
        ("https://auth/token?service=s&scope=repository:a:pull&account=me", "https://auth/token?service=s&scope=repository:a:pull&account=…"),
        ("https://[::1]:5000/v2/", "https://[::1]:5000/v2/"),
        ("https://h:notaport/", "(a URL that cannot be read)"),
    ],
)  # fmt: skip
def test_urls_are_shown_without_what_may_be_secret(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("text", "has_certificate", "base"),
    [
        ("localhost:5000", False, "http://localhost:5000/v2/"),
        ("localhost:5000", True, "https://localhost:5000/v2/"),
        ("127.0.0.1", False, "http://127.0.0.1/v2/"),
        ("[::1]:5000", False, "http://[::1]:5000/v2/"),
        ("registry:5000", False, "https://registry:5000/v2/"),
        ("10.0.0.1:5000", False, "https://10.0.0.1:5000/v2/"),
        ("http://registry:5000", False, "http://registry:5000/v2/"),
        ("https://registry:443/", False, "https://registry/v2/"),
        ("https://registry/artifacts/v2/", False, "https://registry/artifacts/v2/"),
        ("docker.io", False, "https://registry-1.docker.io/v2/"),
    ],
)
def test_the_scheme_of_a_registry(text, has_certificate, base):
    assert RegistryAddress.parse(text, has_certificate=has_certificate).base == base


@pytest.mark.parametrize(
    "text",
    [
        *("", "http://", "ftp://h", "https://user:secret@h", "h?x=1", "h:port", "http://h#f", "h:0", "h:99999"),
        *("a..b", "http://a..b/", "x" * 64, "-h", "127。0。0。1", "\uff4cocalhost:5000", "[::1", "[::g]", "h h"),
    ],
)
def test_what_is_no_registry_says_so_without_secrets(text):
    with pytest.raises(InvalidAddress, match="is not the address of a registry") as caught:
        RegistryAddress.parse(text)
    assert "secret" not in str(caught.value)


def test_a_login_in_the_address_is_told_where_it_belongs():
    with pytest.raises(InvalidAddress, match="a login is not part of it; give --username and --password-file"):
        RegistryAddress.parse("https://user:secret@h")
