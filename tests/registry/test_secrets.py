"""Whatever a registry repeats of our secrets, in whatever form and place: no text of ours has it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from aiohttp import web

from registry_spooler.backoff import Backoff
from registry_spooler.errors import SpoolerError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.registry.auth.credentials import CredentialSettings, CredentialSource
from registry_spooler.registry.http.known_secrets import Credential, KnownSecrets
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from support.registries.lyingserver import body_of, lying, page
from support.registries.playedregistry import TokenServer, running_registry, running_token_server

ONCE = RetryPolicy(tries=1)
PASSWORD = 'p/s+w&r"d=ü%\\ x'
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
TOKEN, REFRESH = "opaque+Token/of=theirs", "renewed+by~this/one"
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a query": quote_plus,
    "in a path": lambda text: quote(text, safe=""),
    "with small hex digits": lambda text: "".join(
        part.lower() if "%" in part else part for part in [quote(text, safe="")]
    ),
    "wholly encoded": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "as JSON": lambda text: json.dumps(text)[1:-1],
    "in capitals": str.upper,
}


def _client(url: str) -> RegistryClient:
    source = CredentialSource(CredentialSettings(username="user", password=PASSWORD))
    return RegistryClient(url, credentials=source, retry=ONCE)


def _check(error: SpoolerError) -> None:
    shown = f"{error} {error.detail} {error!r}".lower()
    for secret in (PASSWORD, BASIC, BASIC.rstrip("="), TOKEN, REFRESH):
        for form in FORMS.values():
            assert form(secret).lower() not in shown
        assert secret[:8].lower() not in shown


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [PASSWORD, BASIC, TOKEN, REFRESH], ids=["password", "basic", "token", "refresh"])
@pytest.mark.parametrize("place", ["message", "code", "detail", "text", "late text", "Location", "host-like path"])
async def test_what_is_repeated_is_not_shown(form, secret, place):
    server = TokenServer(username="user", password=PASSWORD, extra={"token": TOKEN, "refresh_token": REFRESH})
    server.tokens[TOKEN] = []
    told = FORMS[form](secret)
    padding = "x " * (4_000 if place == "late text" else 140)

    def gate(request: web.Request) -> web.StreamResponse | None:
        if (answer := server.gate(request)) is not None or request.method == "GET":
            return answer
        if place in {"Location", "host-like path"}:
            start = "http://a..b/" if place == "host-like path" else "ftp://h/"
            safe = quote(told, safe="/+&=%~")
            return web.Response(status=202, headers={"Location": f"{start}{safe}?{safe}={safe}"})
        if place.endswith("text"):
            return web.Response(status=413, text=f"{padding[: 16 * 1024]}{told}{padding}")
        entry = {"code": "X", "message": padding, place: f"{padding[:280]}{told}"}
        return web.json_response({"errors": [entry]}, status=413)

    async with running_token_server(server), running_registry(gate=gate) as registry, _client(registry.url) as client:
        with pytest.raises(SpoolerError) as caught:
            await client.put_bytes("a", b"x")
    _check(caught.value)


@pytest.mark.parametrize("form", ["as it is", "in a path", "wholly encoded"])
@pytest.mark.parametrize("secret", [PASSWORD, BASIC], ids=["password", "basic"])
@pytest.mark.parametrize("realm", ["ftp://h/", "http://127.0.0.1:1/", "{}/refusing/"])
async def test_what_a_realms_path_repeats_is_not_shown(form, secret, realm):
    told = quote(FORMS[form](secret), safe="/+&=%~")

    async def answer(head, reader, writer):
        if "/refusing/" in head.split("\r\n")[0]:
            writer.write(page(403, body=json.dumps({"details": f"no {secret}"}).encode()))
            return
        # The login goes to whoever asks for Basic; a later challenge may repeat it.
        asked_again = "Authorization" in head
        where = realm.format(url)
        challenge = f'Bearer realm="{where}{told}"' if asked_again else 'Basic realm="x"'
        writer.write(page(401, f"WWW-Authenticate: {challenge}\r\n"))

    async with lying(answer) as url, _client(url) as client:
        for _ in range(2):
            with pytest.raises(SpoolerError) as caught:
                await client.head_manifest(Reference("a"))
            _check(caught.value)


async def test_what_other_answers_repeat_is_not_shown():
    async def answer(head, reader, writer):
        await body_of(head, reader)
        if "Authorization" not in head:
            writer.write(page(401, 'WWW-Authenticate: Basic realm="x"\r\n'))
        elif "/blobs/" in head and "Range: bytes=" in head:
            writer.write(page(206, f"Content-Range: {BASIC}\r\n", b"x"))
        elif "/blobs/" in head:
            writer.write(page(200, body=b"x" * 70_000)[:-10_000])
            await writer.drain()
            writer.close()
        else:
            document = {
                "schemaVersion": 2,
                "mediaType": BASIC,
                "layers": [{"mediaType": BASIC, "digest": BASIC, "size": 1}],
            }
            writer.write(page(200, f"Content-Type: {BASIC}\r\n", json.dumps(document).encode()))

    source = CredentialSource(CredentialSettings(username="user", password=PASSWORD))
    policy = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01))
    async with lying(answer) as url, RegistryClient(url, credentials=source, retry=policy) as client:
        for ask in (
            client.get_manifest(Reference("a")),
            client.get_bytes("a", Digest.of(b""), limit_bytes=1 << 20),
            client.list_referrers("a", Digest.of(b"")),
        ):
            with pytest.raises(SpoolerError) as caught:
                await ask
            _check(caught.value)


async def test_a_token_that_no_header_can_hold_is_told_of_as_a_setting(tmp_path):
    file = tmp_path / "token"
    file.write_text("two\r\nlines: of it")
    source = CredentialSource(CredentialSettings(token_file=file))
    async with RegistryClient("http://127.0.0.1:1", credentials=source, retry=ONCE) as client:
        with pytest.raises(SpoolerError, match="it is not a token") as caught:
            await client.head_manifest(Reference("a"))
    assert caught.value.temporary
    assert "two" not in str(caught.value)


def test_what_is_known_is_bounded_and_not_shown():
    known = KnownSecrets()
    for number in range(1000):
        known.learn_token(f"token-{number:04}")
        known.learn_login(Credential(username="user", password=f"password-{number:04}"))
    known.learn_token("", "ab")
    assert known.hide("token-0999 and password-0999, ab") == "… and …, ab"
    assert known.hide("token-0000") == "token-0000"
    assert "password" not in repr(known)
