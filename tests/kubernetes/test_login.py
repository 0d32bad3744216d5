"""Logging in as kubectl does: contexts, merged files, tokens, plug-ins, certificates, a pod's own account."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_spooler.kubernetes import config as kube_login
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import KubeConfigurationError, KubeLoginRejected, KubeUnreachable
from registry_spooler.kubernetes.config import ClusterLogin, log_in
from support.cluster.apiserver import ApiServer

ASKED = {"asked": "list pods", "permission": "list pods"}
PLUGIN = """#!/bin/sh
echo x >> {counter}
cat <<.
{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {{"token": "$(cat {token})"}}}}
.
"""


async def pods(login: ClusterLogin) -> int:
    """How many pods the API server shows to this login."""
    async with Cluster(login) as cluster:
        return len((await cluster.get_json(cluster.pods_path, **ASKED))["items"])


@pytest.fixture
def config(api: ApiServer, tmp_path: Path) -> Callable[..., Path]:
    """Write a kubeconfig, with another user, cluster or context than the usual."""

    def write(name: str = "config", *, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
        path = api.kubeconfig(tmp_path / name, user=user)
        document = json.loads(path.read_bytes())
        document["clusters"][0]["cluster"] |= cluster
        path.write_text(json.dumps(document))
        return path

    return write


async def test_the_context_says_which_namespace(config: Callable[..., Path]) -> None:
    assert "registry" == (await log_in(kubeconfig=config())).namespace
    assert "other" == (await log_in(kubeconfig=config(), namespace="other")).namespace


async def test_a_context_by_name_in_merged_files(
    config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = json.loads(config().read_bytes())
    second["contexts"] = [{"name": "second", "context": {"cluster": "test", "user": "me", "namespace": "two"}}]
    (tmp_path / "second").write_text(json.dumps(second))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{config()}:{tmp_path / 'second'}")
    assert "registry" == (await log_in()).namespace
    assert "two" == (await log_in(context="second")).namespace


async def test_a_token_in_a_file(config: Callable[..., Path], api: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(api.token)
    assert 1 == await pods(await log_in(kubeconfig=config(user={"tokenFile": str(tmp_path / "token")})))


async def test_a_token_that_changes(config: Callable[..., Path], api: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of yesterday")
    login = await log_in(kubeconfig=config(user={"tokenFile": str(tmp_path / "token")}))
    (tmp_path / "token").write_text(api.token)
    assert 1 == await pods(login)


async def test_a_login_plugin_is_asked_again_when_its_token_is_refused(
    config: Callable[..., Path], api: ApiServer, tmp_path: Path
) -> None:
    plugin, counter, token = tmp_path / "plugin", tmp_path / "counter", tmp_path / "token"
    plugin.write_text(PLUGIN.format(counter=counter, token=token))
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    token.write_text("expired")
    user = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    }
    login = await log_in(kubeconfig=config(user=user))
    token.write_text(api.token)
    assert 1 == await pods(login)
    assert "x\nx\n" == counter.read_text()


async def test_a_login_plugin_that_fails(config: Callable[..., Path]) -> None:
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}}
    with pytest.raises(
        KubeConfigurationError, match="the login of the kubeconfig does not work: exec: process returned 1"
    ):
        await log_in(kubeconfig=config(user=user))


async def test_a_client_certificate(config: Callable[..., Path], api: ApiServer) -> None:
    pem = str(api.certificates / "server.pem")
    login = await log_in(kubeconfig=config(user={"client-certificate": pem, "client-key": pem, "token": api.token}))
    assert 1 == await pods(login)


async def test_a_certificate_that_is_not_there(config: Callable[..., Path]) -> None:
    with pytest.raises(KubeConfigurationError, match="no-such-file"):
        await log_in(kubeconfig=config(user={"client-certificate": "/no-such-file", "client-key": "/no-such-file"}))


async def test_the_account_of_a_pod(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incluster_config = kube_login._library().incluster_config
    (tmp_path / "token").write_text(api.token)
    (tmp_path / "namespace").write_text("registry\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(api.certificates / "ca.pem"))
    monkeypatch.setattr(kube_login, "_IN_CLUSTER_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    login = await log_in()
    assert ("registry", 1) == (login.namespace, await pods(login))


async def test_neither_a_kubeconfig_nor_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(KubeConfigurationError, match="there is no kubeconfig, and this is no pod"):
        await log_in()


@pytest.mark.parametrize(
    "content", ["", "a: [", "[]", "text", "{}", '{"contexts": [], "clusters": [], "current-context": "x"}']
)
async def test_a_file_that_is_no_kubeconfig(tmp_path: Path, content: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(KubeConfigurationError, match="cannot be used"):
        await log_in(kubeconfig=tmp_path / "config")


@pytest.mark.parametrize(
    ("content", "context", "reason"),
    [
        ("text", None, "it does not have the form of a kubeconfig"),
        ("[]", None, "it does not have the form of a kubeconfig"),
        ('{"contexts": [], "clusters": [], "current-context": "x"}', None, "it has no context named 'x'"),
        ('{"contexts": [], "clusters": [], "users": []}', "nope", "it has no context named 'nope'"),
    ],
)
async def test_what_is_wrong_with_a_kubeconfig(tmp_path: Path, content: str, context: str | None, reason: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(KubeConfigurationError) as caught:
        await log_in(kubeconfig=tmp_path / "config", context=context)
    assert f"the kubeconfig {tmp_path / 'config'} cannot be used: {reason}; give" in str(caught.value)


async def test_a_server_that_is_not_trusted(config: Callable[..., Path]) -> None:
    path = config()
    document = json.loads(path.read_bytes())
    del document["clusters"][0]["cluster"]["certificate-authority-data"]
    path.write_text(json.dumps(document))
    with pytest.raises(KubeUnreachable, match="its certificate is not trusted"):
        await pods(await log_in(kubeconfig=path))


async def test_a_server_that_need_not_be_trusted(config: Callable[..., Path]) -> None:
    path = config()
    document = json.loads(path.read_bytes())
    del document["clusters"][0]["cluster"]["certificate-authority-data"]
    document["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    path.write_text(json.dumps(document))
    assert 1 == await pods(await log_in(kubeconfig=path))


async def test_a_server_by_another_name(config: Callable[..., Path], api: ApiServer) -> None:
    path = config(**{"server": f"https://localhost:{api.port}", "tls-server-name": "127.0.0.1"})
    assert 1 == await pods(await log_in(kubeconfig=path))


async def test_a_server_that_is_not_there(config: Callable[..., Path]) -> None:
    login = await log_in(kubeconfig=config(server="https://127.0.0.1:1"))
    said = (
        r"https://127\.0\.0\.1:1 cannot be reached: nothing listens there \(connection refused\);.*kubectl cluster-info"
    )
    with pytest.raises(KubeUnreachable, match=said):
        await pods(login)


async def test_no_secret_in_what_is_shown(config: Callable[..., Path], api: ApiServer) -> None:
    login = await log_in(kubeconfig=config(user={"token": "hush-hush"}))
    assert "hush" not in repr(login)
    with pytest.raises(KubeLoginRejected) as caught:
        await pods(login)
    assert "hush" not in f"{caught.value} {caught.value.detail} {caught.value!r}"


@pytest.mark.parametrize("before", ["", "import kubernetes_asyncio.client; "])
def test_the_library_is_imported_as_far_as_it_is_used(config: Callable[..., Path], before: str) -> None:
    program = (
        f"import anyio, sys; {before}from registry_spooler.kubernetes.config import log_in; from pathlib import Path; "
        "anyio.run(lambda: log_in(kubeconfig=Path(sys.argv[1]))); "
        "print('kubernetes_asyncio.client.models' in sys.modules); "
        "import kubernetes_asyncio.client; print(kubernetes_asyncio.client.CoreV1Api.__name__)"
    )
    command = [sys.executable, "-c", program, str(config())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [str(bool(before)), "CoreV1Api"] == done.stdout.split()
