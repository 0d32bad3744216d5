"""`kubectl spool push --dry-run` says what would be sent, and nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.cluster.apiserver import ApiServer
from support.cluster.terminal import Terminal
from support.images import archives
from support.images.archive_parts import Image, big_layer, layer
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

MEGA = 1 << 20


@pytest.fixture
def pod(api: ApiServer, registry: RunningRegistry) -> ApiServer:
    api.registry = registry.url
    return api


def write(
    path: Path, repository: str, *, second: bytes, make: Callable[[Image], bytes] = archives.podman_docker
) -> None:
    image = Image(layers=(big_layer(MEGA, seed=int(repository[-12:], 16)), second))
    path.write_bytes(make(image))


def received(pod: ApiServer) -> list[list[str]]:
    return [running.command for running in pod.executions if "receive" in running.command]


async def test_what_a_push_would_send_is_what_it_sends(
    tmp_path: Path, kubeconfig: Path, pod: ApiServer, repository: str, registry: RunningRegistry
) -> None:
    terminal = Terminal(tmp_path, kubeconfig)
    write(tmp_path / "app.tar", repository, second=layer("one"))
    planned = (await terminal.spool("push", "app.tar", f"{repository}:1", "--dry-run", "--json")).json
    assert ([], False) == (received(pod), Reader(registry).has(repository, "1"))
    assert (None, 0, 4) == (planned["replaces"], planned["existing_blobs"], len(planned["send"]))
    assert MEGA // 2 < planned["send_bytes"] == sum(entry["size_bytes"] for entry in planned["send"])

    receipt = (await terminal.spool("push", "app.tar", f"{repository}:1", "--json")).json
    assert (planned["digest"], 3) == (receipt["digest"], receipt["blobs"]["uploaded"])

    write(tmp_path / "app.tar", repository, second=layer("two"))
    before = len(received(pod))
    lines = (await terminal.spool("push", "app.tar", f"{repository}:1", "--dry-run")).lines
    assert before == len(received(pod))
    assert receipt["digest"] == Reader(registry).image(repository, "1").digest
    assert lines[0].startswith(f"{repository}:1@sha256:")
    assert lines[0].endswith(f"(replaces {receipt['digest']})")
    assert lines[1].startswith("to send: 3 blobs and manifests, ")
    assert "; there already: 1 blob (" in lines[1]
    assert lines[-1].startswith("to: namespace registry of https://127.0.0.1:")


async def test_through_a_pipe_and_for_workloads(
    tmp_path: Path, kubeconfig: Path, pod: ApiServer, repository: str
) -> None:
    terminal = Terminal(tmp_path, kubeconfig)
    pod.workloads.config_map = {"data": {"localRegistryHosting.v1": "host: nodes.example:5000"}}
    pod.workloads.add("deployments", "web")
    write(tmp_path / "app.tar", repository, second=layer("one"), make=archives.oci_archive)
    script = f"cat app.tar | kubectl-spool push - {repository}:1 --dry-run --set deploy/web --json"
    planned = (await terminal.run("sh", "-c", script)).json
    assert [f"nodes.example:5000/{repository}:1@{planned['digest']}"] == [entry["image"] for entry in planned["set"]]
    assert ([], []) == (received(pod), pod.workloads.patches)
