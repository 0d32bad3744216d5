"""Which login of a docker configuration is for which repository, by both families of rules."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from registry_spooler.errors import SpoolerError
from registry_spooler.registry.address import RegistryAddress
from registry_spooler.registry.auth.credentials import CredentialSettings, CredentialSource, DockerConfig
from registry_spooler.registry.http.known_secrets import Credential


def _candidates(auths: dict[str, Any], registry: str, repository: str) -> list[str]:
    """The user names of the logins that would be tried."""
    content = orjson.dumps({"auths": auths})
    address = RegistryAddress.parse(registry)
    return [login.username for login in DockerConfig.parse(content).candidates(address.spellings, repository)]


def _users(*keys: str) -> dict[str, Any]:
    return {key: {"username": key, "password": "x"} for key in keys}


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "expected"),
    [
        (["h.example"], "h.example", "a/b", ["h.example"]),
        (["h.example"], "other.example", "a/b", []),
        (["h.example:5000"], "h.example:5000", "a", ["h.example:5000"]),
        (["h.example"], "h.example:5000", "a", []),
        (["h.example:5000"], "h.example", "a", []),
        (["h.example:443"], "h.example", "a", ["h.example:443"]),
        (["https://h.example/v1/"], "h.example", "a", ["https://h.example/v1/"]),
        (["https://h.example/v2"], "h.example", "a", ["https://h.example/v2"]),
        (["http://h.example"], "h.example", "a", ["http://h.example"]),
        (["h.example", "h.example/ns", "h.example/ns/user"], "h.example", "ns/user/img",
         ["h.example/ns/user", "h.example/ns", "h.example"]),
        (["h.example/ns"], "h.example", "nsx/img", []),
        (["h.example/ns"], "h.example", "ns", ["h.example/ns"]),
        (["*.example"], "h.example", "a", ["*.example"]),
        (["*.example"], "a.b.example", "a", []),
        (["*.*.example"], "a.b.example", "a", ["*.*.example"]),
        (["h*.example/ns"], "h1.example", "ns/a", ["h*.example/ns"]),
        (["*.example", "h.example"], "h.example", "a", ["h.example", "*.example"]),
        (["*.example:5000"], "h.example", "a", []),
        (["https://index.docker.io/v1/"], "docker.io", "library/a", ["https://index.docker.io/v1/"]),
        (["docker.io"], "registry-1.docker.io", "library/a", ["docker.io"]),
        (["localhost:5000"], "http://localhost:5000", "a", ["localhost:5000"]),
        (["H.Example"], "h.example", "a", ["H.Example"]),
    ],
)  # fmt: skip
def test_matching(keys, registry, repository, expected):
    assert _candidates(_users(*keys), registry, repository) == expected


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": _encoded("user:pass:word")}, Credential(username="user", password="pass:word")),
        ({"auth": _encoded("user:password\0")}, Credential(username="user", password="password")),
        ({"auth": _encoded("user:password").rstrip("=")}, Credential(username="user", password="password")),
        ({"username": "u", "password": "p"}, Credential(username="u", password="p")),
        ({"auth": _encoded("u:p"), "username": "other"}, Credential(username="u", password="p")),
        ({"identitytoken": "t"}, Credential(identity_token="t")),
        ({"auth": _encoded("00000000:"), "identitytoken": "t"}, Credential(username="00000000", identity_token="t")),
        ({"username": "<token>", "password": "t"}, Credential(username="<token>", identity_token="t")),
        ({"registrytoken": "t"}, Credential(registry_token="t")),
    ],
)
def test_entries(entry, expected):
    config = DockerConfig.parse(orjson.dumps({"auths": {"h": entry}}))
    assert config.candidates(("h",), "a") == (expected,)


@pytest.mark.parametrize("entry", [{}, {"auth": ""}, {"auth": "%%%"}, {"auth": 1}, None, [], {"email": "e"}])
def test_entries_that_say_nothing(entry):
    assert DockerConfig.parse(orjson.dumps({"auths": {"h": entry}, "credHelpers": {}})).logins == ()


def test_the_old_format():
    config = DockerConfig.parse(orjson.dumps({"https://h/v1/": {"auth": _encoded("u:p"), "email": "e"}}))
    assert config.candidates(("h",), "a") == (Credential(username="u", password="p"),)


@pytest.mark.parametrize("content", [b"", b"no", b"[]", b'{"auths":[]}'])
async def test_a_file_that_is_no_configuration(tmp_path, content):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    source = CredentialSource(CredentialSettings(docker_config=file))
    with pytest.raises(SpoolerError, match="cannot be used: it") as caught:
        await source.candidates(("h",), "a")
    assert caught.value.temporary


async def test_a_file_that_is_not_there_and_one_that_is_swapped(tmp_path, monkeypatch):
    monkeypatch.setattr("registry_spooler.registry.http.trust.REREAD_SECONDS", 0.0)
    file = tmp_path / "config.json"
    source = CredentialSource(CredentialSettings(docker_config=file))
    with pytest.raises(SpoolerError, match="No such file"):
        await source.candidates(("h",), "a")
    for user in ("one", "two"):
        fresh = tmp_path / "fresh"
        fresh.write_bytes(orjson.dumps({"auths": {"h": {"username": user, "password": "p"}}}))
        fresh.replace(file)
        assert [login.username for login in await source.candidates(("h",), "a")] == [user]
    file.unlink()
    assert [login.username for login in await source.candidates(("h",), "a")] == ["two"]


async def test_what_is_given_directly_goes_first(tmp_path):
    (tmp_path / "password").write_text("from file\n")
    (tmp_path / "token").write_text("token\n")
    settings = CredentialSettings(username="u", password_file=tmp_path / "password", docker_config=tmp_path / "none")
    with pytest.raises(SpoolerError):
        await CredentialSource(settings).candidates(("h",), "a")
    settings = CredentialSettings(username="u", password_file=tmp_path / "password")
    assert await CredentialSource(settings).candidates(("h",), "a") == (Credential(username="u", password="from file"),)
    settings = CredentialSettings(token_file=tmp_path / "token")
    assert await CredentialSource(settings).candidates(("h",), "a") == (Credential(registry_token="token"),)
    assert await CredentialSource(CredentialSettings()).candidates(("h",), "a") == ()
