"""Who goes leaves nothing behind: not in the pod, not in the registry's open uploads, not in the cache."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest

from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.redial import Redial
from registry_spooler.kubernetes.remote_session import PodSession
from registry_spooler.kubernetes.transfer.send import SendOptions, open_source, send
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from support.cluster.apiserver import ApiServer
from support.cluster.terminal import Terminal
from support.cluster.wire import Wire
from support.images import archives
from support.images.archive_parts import Image, big_layer, layer
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

MEGA = 1 << 20
SELECTOR = "app.kubernetes.io/name=registry-spooler"


@pytest.fixture
def archive(tmp_path: Path, repository: str) -> Path:
    path = tmp_path / "app.tar"
    seed = int(repository[-12:], 16)
    path.write_bytes(archives.podman_docker(Image(layers=(layer(repository), big_layer(4 * MEGA, seed=seed)))))
    return path


@pytest.fixture
def pod(api: ApiServer, registry: RunningRegistry) -> ApiServer:
    api.registry = registry.url
    return api


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_in_the_middle_of_a_push(
    pod: ApiServer,
    archive: Path,
    kubeconfig: Path,
    tmp_path: Path,
    repository: str,
    wire: Wire,
    registry: RunningRegistry,
    number: signal.Signals,
) -> None:
    terminal = Terminal(tmp_path, kubeconfig)
    process = await terminal.start(["kubectl-spool", "push", "app.tar", f"{repository}:1", "--rate-limit", "500k"])
    while wire.sent < 300_000:
        await anyio.sleep(0.02)
        assert process.returncode is None
    process.send_signal(number)
    assert -number == await process.wait()
    _, stderr = await process.communicate()
    assert b"Traceback" not in stderr
    await pod.all_ended()
    assert [] == list((tmp_path / ".cache" / "registry-spooler" / "blobs").iterdir())
    assert not Reader(registry).has(repository, "1")


async def test_a_closed_pipe_ends_it_quietly(
    pod: ApiServer, archive: Path, kubeconfig: Path, tmp_path: Path, repository: str
) -> None:
    terminal = Terminal(tmp_path, kubeconfig)
    await terminal.spool("push", "app.tar", f"{repository}:1")
    done = await terminal.run(
        "bash", "-c", f"kubectl-spool pull {repository}:1 | head -c 1000 | wc -c; echo ${{PIPESTATUS[0]}}"
    )
    assert ["1000", str(128 + signal.SIGPIPE)] == done.lines
    assert "" == done.stderr
    await pod.all_ended()


@pytest.mark.parametrize("after", [0.05, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0])
async def test_cancelling_anywhere(
    pod: ApiServer, archive: Path, cluster: Cluster, tmp_path: Path, repository: str, after: float
) -> None:
    session = PodSession(cluster, SELECTOR, "spooler", redial=Redial(first_pause_seconds=0.01))
    options = SendOptions(cache=tmp_path / "cache")
    with anyio.move_on_after(after):
        async with open_source(archive) as source:
            await send(session, source, Reference(repository, "1"), Progress(), options=options)
    await pod.all_ended()
    blobs = tmp_path / "cache" / "blobs"
    assert [] == (list(blobs.iterdir()) if blobs.exists() else [])


async def test_a_pod_that_never_answers_is_given_up(
    pod: ApiServer, cluster: Cluster, archive: Path, repository: str, tmp_path: Path
) -> None:
    pod.environment["PATH"] = str(_program(tmp_path, "registry-client", "exec sleep 60"))
    session = PodSession(cluster, SELECTOR, "spooler", redial=Redial(patience_seconds=0, first_pause_seconds=0.01))
    remote = await session.remote()
    remote.silence_seconds = 0.3
    with pytest.raises(SpoolerError, match="nothing was heard for"):
        async with open_source(archive) as source:
            await send(
                session, source, Reference(repository, "1"), Progress(), options=SendOptions(cache=tmp_path / "c")
            )


def _program(folder: Path, name: str, script: str) -> Path:
    path = folder / "programs" / name
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Path(f"{path.parent}:{os.environ['PATH']}")
