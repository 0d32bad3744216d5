"""Where the settings come from: flags before and behind the command, and two families of variables."""

from __future__ import annotations

import pytest

from support.images.posted import Poster, layer_tar
from support.programs.command_client import Client

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def registries(make_registry):
    """Two registries, each with a repository by which to know it."""
    made = []
    for name in ("first", "second"):
        registry = make_registry()
        Poster(registry, name).image([layer_tar({"hello": b""})], tag="latest")
        made.append(registry)
    return made


def test_what_is_set_for_the_spooler_counts(registries, tmp_path):
    first, second = (registry.host for registry in registries)

    def listed(*arguments: str, **variables: str) -> list[str]:
        environment = {"REGISTRY_CLIENT_REGISTRY": "", **variables}
        client = Client(registries[0], tmp_path, environment)
        return client.lines(*arguments)

    assert listed("list", REGISTRY_SPOOLER_REGISTRY=second) == ["second"]
    assert listed("list", REGISTRY_SPOOLER_registry=second) == ["second"]
    assert listed("list", REGISTRY_SPOOLER_REGISTRY=second, REGISTRY_CLIENT_REGISTRY=first) == ["first"]
    assert listed("list", "--registry", second, REGISTRY_CLIENT_REGISTRY=first) == ["second"]
    assert listed("-r", second, "list", REGISTRY_CLIENT_REGISTRY=first) == ["second"]
    assert listed("-r", NOWHERE, "list", "-r", second, REGISTRY_CLIENT_REGISTRY=first) == ["second"]


def test_tls_and_a_login_from_files(make_registry, tmp_path):
    registry = make_registry(tls=True, htpasswd={"ada": "lovelace"})
    (tmp_path / "password").write_text("lovelace\n")
    client = Client(registry, tmp_path, {"REGISTRY_CLIENT_CERTIFICATE": str(registry.certificate)})

    client.run("--username", "ada", "--password-file", "password", "list")
    assert "401" in client.error("list", code=4)


@pytest.mark.parametrize("arguments", [("list",), ("pull", "app"), ("wait", "app.tar")])
def test_help_is_for_every_command(client, arguments):
    assert b"Usage: registry-client" in client.run(*arguments, "--help").stdout
