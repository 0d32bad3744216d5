"""Getting in: Basic, Bearer in all its forms, and renewal in the middle of things."""

from __future__ import annotations

import base64
import json

import anyio
import orjson
import pytest
from aiohttp import web

from registry_spooler.backoff import Backoff
from registry_spooler.errors import AccessDenied, RegistryError
from registry_spooler.oci.digest import Digest
from registry_spooler.progress import Progress
from registry_spooler.registry.auth.credentials import CredentialSettings, CredentialSource
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.vendors import UploadOptions
from support.registries.memory_blobs import Blob, noise
from support.registries.playedregistry import TokenServer, running_registry, running_token_server

MIB = 1 << 20
SECRET = "pass:wörd"
QUICK = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01))


def _client(url: str, **settings: object) -> RegistryClient:
    source = CredentialSource(CredentialSettings(**settings))
    return RegistryClient(url, credentials=source, retry=QUICK, upload_options=UploadOptions(chunk_size_bytes=MIB))


async def test_basic_against_the_real_registry(make_registry, repository):
    registry = make_registry(htpasswd={"user": SECRET}, inmemory=True)
    blob = Blob(noise(3 * MIB))
    async with _client(registry.url, username="user", password=SECRET) as client:
        await client.ping()
        await client.put_blob(repository, blob.opener, Progress())
        assert await client.blob_exists(repository, blob.digest) == 3 * MIB
    async with _client(registry.url, username="user", password="wrong") as client:
        with pytest.raises(AccessDenied, match="check the user name and password") as caught:
            await client.ping()
        assert caught.value.temporary
        assert not caught.value.transient
    async with RegistryClient(registry.url, retry=QUICK) as client:
        with pytest.raises(AccessDenied, match="the registry wants a login; give it with --username"):
            await client.blob_exists(repository, blob.digest)


@pytest.mark.parametrize("helper", [{"credsStore": "pass"}, {"credHelpers": {"HOST": "ecr-login"}}])
async def test_a_login_that_only_a_helper_knows(make_registry, tmp_path, helper):
    registry = make_registry(htpasswd={"user": SECRET}, inmemory=True)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {registry.host: {}}, **helper}).replace("HOST", registry.host))
    async with _client(registry.url, docker_config=file) as client:
        with pytest.raises(AccessDenied, match="to a credential helper, and helpers are not run; give it with"):
            await client.ping()
    login = {"username": "user", "password": "wrong"}
    file.write_text(json.dumps({"auths": {registry.host: login}, **helper}).replace("HOST", registry.host))
    async with _client(registry.url, docker_config=file) as client:
        with pytest.raises(AccessDenied, match="check the user name and password"):
            await client.ping()


async def test_a_password_file_is_read_again(make_registry, tmp_path):
    registry = make_registry(htpasswd={"user": SECRET}, inmemory=True)
    file = tmp_path / "password"
    file.write_text("old\n")
    async with _client(registry.url, username="user", password_file=file) as client:
        with pytest.raises(AccessDenied):
            await client.ping()
        file.write_text(SECRET + "\n")
        await client.ping()


async def test_a_bearer_token_is_fetched_once_and_for_pushing(repository):
    server = TokenServer(username="user", password=SECRET)
    blob = Blob(noise(3 * MIB))
    async with running_token_server(server), running_registry(gate=server.gate) as registry:
        async with _client(registry.url, username="user", password=SECRET) as client:
            assert await client.blob_exists(repository, blob.digest) is None
            await client.put_blob(repository, blob.opener, Progress())
        assert registry.blobs[str(blob.digest)] == blob.content
        challenged = [entry for entry in registry.requests if "authorization" not in entry[2]]
    assert len(challenged) == 1
    assert len(server.asked) == 1
    method, parameters, said = server.asked[0]
    assert method == "GET"
    assert parameters == {
        "keep": ["this"],
        "service": ["played"],
        "scope": [f"repository:{repository}:pull,push"],
        "client_id": ["registry-spooler"],
        "account": ["user"],
    }
    assert said == "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()


async def test_anonymous_tokens(repository):
    server = TokenServer()
    async with (
        running_token_server(server),
        running_registry(gate=server.gate) as registry,
        RegistryClient(registry.url, pushes=False) as client,
    ):
        assert await client.blob_exists(repository, Digest.of(b"")) is None
    assert server.asked[0][1]["scope"] == [f"repository:{repository}:pull"]
    assert server.asked[0][2] == ""


async def test_one_fetch_for_many_who_need_the_same_token(repository):
    server = TokenServer()
    async with (
        running_token_server(server),
        running_registry(gate=server.gate) as registry,
        RegistryClient(registry.url) as client,
    ):
        await client.ping()
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(client.blob_exists, repository, Digest.of(bytes(number)))
    assert [asked[1].get("scope") for asked in server.asked] == [None, [f"repository:{repository}:pull,push"]]


@pytest.mark.parametrize("uses", [1, 2, 3])
@pytest.mark.parametrize("rewindable", [True, False], ids=["rewindable", "once"])
async def test_tokens_that_run_out_in_mid_blob(repository, uses, rewindable):
    server = TokenServer(uses=uses)
    blob = Blob(noise(5 * MIB), rewindable=rewindable, knows_size=rewindable)
    async with running_token_server(server), running_registry(gate=server.gate) as registry:
        async with _client(registry.url) as client:
            await client.put_blob(repository, blob.opener, Progress())
        assert registry.blobs[str(blob.digest)] == blob.content
    assert blob.opened == 1


async def test_a_token_is_renewed_before_it_runs_out(repository, monkeypatch):
    server = TokenServer(extra={"expires_in": 100})
    async with running_token_server(server), running_registry(gate=server.gate) as registry:
        async with RegistryClient(registry.url) as client:
            now = [1000.0]
            monkeypatch.setattr(client._http.login._tokens, "_clock", lambda: now[0])
            for moment in (1000.0, 1079.0, 1081.0, 1160.0, 1162.0):
                now[0] = moment
                await client.blob_exists(repository, Digest.of(b""))
        assert len(server.asked) == 3
        assert registry.count("HEAD") == 6


async def test_a_fresh_token_that_is_refused_is_final(repository):
    server = TokenServer(uses=0)
    async with running_token_server(server), running_registry(gate=server.gate) as registry:
        async with RegistryClient(registry.url, retry=QUICK) as client:
            with pytest.raises(AccessDenied):
                await client.blob_exists(repository, Digest.of(b""))
        assert registry.count("HEAD") == 2


@pytest.mark.parametrize("oauth", [True, False], ids=["OAuth2", "GET after a refusal"])
async def test_identity_tokens(repository, tmp_path, oauth):
    server = TokenServer(username="<token>", password="identity" * 4, identity_token="identity" * 4, oauth=oauth)
    config = tmp_path / "config.json"
    async with running_token_server(server), running_registry(gate=server.gate) as registry:
        host = registry.url.removeprefix("http://")
        config.write_bytes(orjson.dumps({"auths": {host: {"identitytoken": "identity" * 4}}}))
        async with _client(registry.url, docker_config=config) as client:
            assert await client.blob_exists(repository, Digest.of(b"")) is None
    assert [asked[0] for asked in server.asked] == (["POST"] if oauth else ["POST", "GET"])
    assert server.asked[0][1] == {
        "grant_type": ["refresh_token"],
        "service": ["played"],
        "client_id": ["registry-spooler"],
        "scope": [f"repository:{repository}:pull,push"],
        "refresh_token": ["identity" * 4],
    }


async def test_a_token_server_that_only_takes_posts(repository):
    server = TokenServer(username="user", password=SECRET, plain=False)
    async with (
        running_token_server(server),
        running_registry(gate=server.gate) as registry,
        _client(registry.url, username="user", password=SECRET) as client,
    ):
        assert await client.blob_exists(repository, Digest.of(b"")) is None
    assert [asked[0] for asked in server.asked] == ["GET", "POST"]


async def test_a_refused_login_names_the_token_server_and_no_secret(repository):
    server = TokenServer(username="user", password="right")
    async with (
        running_token_server(server),
        running_registry(gate=server.gate) as registry,
        _client(registry.url, username="user", password=SECRET) as client,
    ):
        with pytest.raises(AccessDenied, match="the token server refuses the login") as caught:
            await client.blob_exists(repository, Digest.of(b""))
    _no_secret(caught.value, SECRET)


async def test_a_token_server_that_gives_nobody_a_token_without_a_login(repository):
    server = TokenServer(username="user", password="right")
    async with (
        running_token_server(server),
        running_registry(gate=server.gate) as registry,
        RegistryClient(registry.url, retry=QUICK) as client,
    ):
        with pytest.raises(AccessDenied, match="the registry wants a login; give it with --username") as caught:
            await client.blob_exists(repository, Digest.of(b""))
    assert "check the user name" not in str(caught.value)


def _no_secret(error: RegistryError, *secrets: str) -> None:
    seen = f"{error} {error!r} {error.detail} {vars(error)}"
    for secret in secrets:
        assert secret not in seen
        assert base64.b64encode(f"user:{secret}".encode()).decode() not in seen


async def test_nothing_secret_in_any_repr(tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(orjson.dumps({"auths": {"h": {"username": "user", "password": SECRET}}}))
    settings = CredentialSettings(username="user", password=SECRET, token=SECRET, docker_config=file)
    source = CredentialSource(settings)
    candidates = await CredentialSource(CredentialSettings(docker_config=file)).candidates(("h",), "a")
    client = RegistryClient("https://registry.test", credentials=source)
    assert SECRET not in repr((settings, source, candidates, client, client._http))
    assert candidates[0].password == SECRET


async def test_a_registry_token_is_sent_at_once(repository):
    seen = []

    def gate(request: web.Request) -> web.StreamResponse | None:
        seen.append(request.headers.get("Authorization"))
        return None

    async with running_registry(gate=gate) as registry, _client(registry.url, token="abc") as client:
        await client.blob_exists(repository, Digest.of(b""))
    assert seen == ["Bearer abc"]


async def test_basic_where_bearer_was_asked_for_before(repository):
    """Harbor: Bearer for repositories, Basic for its catalog and for whoever comes with a token of no use."""
    server = TokenServer(username="user", password=SECRET)
    basic = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()

    def gate(request: web.Request) -> web.StreamResponse | None:
        if request.path != "/v2/":
            return server.gate(request)
        said = request.headers.get("Authorization")
        if said == basic:
            return None
        challenge = 'Basic realm="harbor"' if said else f'Bearer realm="{server.url}/token",service="played"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with running_token_server(server), running_registry(gate=gate) as registry:
        async with _client(registry.url, username="user", password=SECRET) as client:
            await client.blob_exists(repository, Digest.of(b""))
            await client.ping()
            await client.blob_exists(repository, Digest.of(b""))
            await client.ping()
        said = [headers.get("authorization", "").partition(" ")[0] for _, _, headers in registry.requests]
    assert said == ["", "Bearer", "Bearer", "Basic", "Bearer", "Basic"]


async def test_basic_when_no_token_can_be_had(repository):
    server = TokenServer(username="another", password="login")
    basic = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()

    def gate(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get("Authorization") == basic:
            return None
        challenge = f'Bearer realm="{server.url}/token",service="a, b", Basic realm="x"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with (
        running_token_server(server),
        running_registry(gate=gate) as registry,
        _client(registry.url, username="user", password=SECRET) as client,
    ):
        await client.blob_exists(repository, Digest.of(b""))
        await client.blob_exists(repository, Digest.of(b""))
    assert len(server.asked) == 1
    assert server.asked[0][1]["service"] == ["a, b"]


async def test_the_next_login_of_a_docker_configuration_is_tried(repository, tmp_path):
    """As Kubernetes does while secrets rotate."""
    server = TokenServer(username="user", password=SECRET)
    config = tmp_path / "config.json"
    async with running_token_server(server), running_registry(gate=server.gate) as registry:
        host = registry.url.removeprefix("http://")
        namespace = repository.partition("/")[0]
        logins = {
            f"{host}/{namespace}": {"username": "user", "password": "old"},
            host: {"auth": base64.b64encode(f"user:{SECRET}".encode()).decode()},
        }
        config.write_bytes(orjson.dumps({"auths": logins}))
        async with _client(registry.url, docker_config=config) as client:
            assert await client.blob_exists(repository, Digest.of(b"")) is None
    assert len(server.asked) == 2


async def test_mounting_asks_for_the_source_too(repository):
    server = TokenServer()
    async with (
        running_token_server(server),
        running_registry(gate=server.gate) as registry,
        RegistryClient(registry.url) as client,
    ):
        assert await client.mount_blob(repository, Digest.of(b""), "other/source") is False
    assert server.asked[-1][1]["scope"] == [f"repository:{repository}:pull,push", "repository:other/source:pull"]
