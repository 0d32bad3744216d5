"""One command in the pod: streams, exit codes, versions, cuts, silence, cancellation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from registry_spooler.kubernetes import exec as kube_exec
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import (
    ExecCut,
    ExecNotStarted,
    ExecNotSupported,
    KubeForbidden,
    KubeLoginRejected,
    KubeNotFound,
)
from registry_spooler.kubernetes.exec import execute, run
from registry_spooler.kubernetes.frames import Channel, ChannelOutput
from registry_spooler.kubernetes.pods import Container
from support.cluster.apiserver import ApiServer
from support.cluster.wire import Wire


class Collected:
    """What a command wrote."""

    def __init__(self) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()

    async def __call__(self, output: ChannelOutput) -> None:
        (self.stdout if output.channel is Channel.STDOUT else self.stderr).extend(output.data)


async def pieces(*content: bytes) -> AsyncGenerator[bytes]:
    for piece in content:
        yield piece


async def test_output_and_exit_code(cluster: Cluster, container: Container) -> None:
    collected = Collected()
    async with execute(cluster, container, ["sh", "-c", "echo out; echo err >&2; exit 7"]) as execution:
        assert 7 == await run(execution, collected)
    assert (b"out\n", b"err\n") == (collected.stdout, collected.stderr)


async def test_bytes_go_both_ways_unchanged(cluster: Cluster, container: Container) -> None:
    content = os.urandom(3 << 20)
    collected = Collected()
    async with execute(cluster, container, ["cat"]) as execution:
        assert 0 == await run(execution, collected, stdin=pieces(content[: 1 << 20], content[1 << 20 :]))
    assert content == collected.stdout


async def test_standard_input_is_closed(cluster: Cluster, container: Container) -> None:
    collected = Collected()
    async with execute(cluster, container, ["wc", "-c"]) as execution:
        assert 0 == await run(execution, collected, stdin=pieces(b"12345"))
    assert b"5" == collected.stdout.strip()


@pytest.mark.parametrize("protocols", [("v4.channel.k8s.io",), ()])
async def test_a_server_before_kubernetes_1_30(
    cluster: Cluster, container: Container, api: ApiServer, protocols: tuple[str, ...]
) -> None:
    api.protocols = protocols
    with pytest.raises(ExecNotSupported, match=r"needs Kubernetes 1\.30 or later"):
        async with execute(cluster, container, ["cat"]):
            pass


async def test_no_shell_sees_the_arguments(cluster: Cluster, container: Container, tmp_path: Path) -> None:
    hostile = f"$(touch {tmp_path}/pwned); `id` & | > \\ \"'\n*?"
    collected = Collected()
    async with execute(cluster, container, ["printf", "%s", hostile]) as execution:
        assert 0 == await run(execution, collected)
    assert hostile == collected.stdout.decode()
    assert not (tmp_path / "pwned").exists()


async def test_a_program_that_is_not_there(cluster: Cluster, container: Container) -> None:
    with pytest.raises(ExecNotStarted, match=r"cannot run no-such-program .* choose the spooler's container with -c"):
        async with execute(cluster, container, ["no-such-program"]) as execution:
            await run(execution, Collected())


async def test_the_command_may_end_before_its_input(cluster: Cluster, container: Container) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with execute(cluster, container, ["sh", "-c", "head -c 100000 >/dev/null; exit 3"]) as execution:
        assert 3 == await run(execution, Collected(), stdin=endless())


async def test_output_that_comes_behind_the_status(cluster: Cluster, container: Container, api: ApiServer) -> None:
    api.last_words = b"and this\n"
    collected = Collected()
    async with execute(cluster, container, ["sh", "-c", "echo this; exit 3"]) as execution:
        assert 3 == await run(execution, collected)
    assert b"this\nand this\n" == collected.stdout


async def test_a_server_that_does_not_close(
    cluster: Cluster, container: Container, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_exec, "ENDING_SECONDS", 0.2)
    api.never_closes = True
    async with execute(cluster, container, ["sh", "-c", "exit 3"]) as execution:
        assert 3 == await run(execution, Collected())


async def test_leaving_ends_the_command(cluster: Cluster, container: Container, api: ApiServer) -> None:
    async with execute(cluster, container, ["cat"]):
        pass
    assert [0] == await api.all_ended()


async def test_cancelling_ends_the_command(cluster: Cluster, container: Container, api: ApiServer) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield bytes(1 << 16)

    with anyio.move_on_after(0.3) as scope:
        async with execute(cluster, container, ["cat"]) as execution:
            await run(execution, Collected(), stdin=endless())
    assert scope.cancelled_caught
    await api.all_ended()


@pytest.mark.parametrize("sent", [0, 1, 5000, 200_000])
async def test_a_cut_is_told_apart_from_an_end(
    cluster: Cluster, container: Container, wire: Wire, api: ApiServer, sent: int
) -> None:
    async with execute(cluster, container, ["cat"]) as execution:
        wire.cut_after(sent=sent)
        with pytest.raises(ExecCut, match="was lost"):
            await run(execution, Collected(), stdin=pieces(bytes(1 << 20)))
    await api.all_ended()


@pytest.mark.parametrize("received", [0, 1, 100_000])
async def test_a_cut_of_the_output(cluster: Cluster, container: Container, wire: Wire, received: int) -> None:
    async with execute(cluster, container, ["head", "-c", "1000000", "/dev/zero"]) as execution:
        wire.cut_after(received=received)
        with pytest.raises(ExecCut):
            await run(execution, Collected())


async def test_silence_ends_the_connection(cluster: Cluster, container: Container, api: ApiServer) -> None:
    async with execute(cluster, container, ["cat"]) as execution:
        with pytest.raises(ExecCut, match=r"nothing was heard for 0\.3 seconds"):
            await run(execution, Collected(), silence_seconds=0.3)
    await api.all_ended()


async def test_long_work_that_says_it_lives_goes_on(cluster: Cluster, container: Container) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo alive >&2; sleep 0.1; done"
    async with execute(cluster, container, ["sh", "-c", script]) as execution:
        assert 0 == await run(execution, Collected(), silence_seconds=0.5)


async def test_pings_cross_while_nothing_else_does(
    cluster: Cluster, container: Container, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_exec, "PING_SECONDS", 0.05)
    async with execute(cluster, container, ["sh", "-c", "sleep 0.5"]) as execution:
        before = wire.sent
        assert 0 == await run(execution, Collected())
    assert wire.sent - before >= 5 * 6


async def test_a_slow_reader_slows_the_command_down(cluster: Cluster, container: Container, wire: Wire) -> None:
    entered = anyio.Event()
    release = anyio.Event()

    async def slow(_: ChannelOutput) -> None:
        entered.set()
        await release.wait()

    async with (
        execute(cluster, container, ["head", "-c", "200000000", "/dev/zero"]) as execution,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run, execution, slow)
        await entered.wait()
        crossed = -1
        while crossed != wire.received:  # until everything between there and here is full
            crossed = wire.received
            await anyio.sleep(0.2)
        tasks.cancel_scope.cancel()
    assert crossed < 32 << 20


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (403, KubeForbidden, r"no you don't.*kubectl auth can-i get pods --subresource=exec -n registry"),
        (404, KubeNotFound, "kubectl get pods"),
    ],
)
async def test_refusals(
    cluster: Cluster, container: Container, api: ApiServer, status: int, kind: type[Exception], sentence: str
) -> None:
    api.refuse("/exec", status, "no you don't", times=2)
    with pytest.raises(kind, match=sentence):
        async with execute(cluster, container, ["true"]):
            pass


async def test_an_expired_login(cluster: Cluster, container: Container, api: ApiServer) -> None:
    api.token = "another"
    with pytest.raises(KubeLoginRejected, match="log in to the cluster again"):
        async with execute(cluster, container, ["true"]):
            pass


async def test_a_large_stream_arrives_whole(cluster: Cluster, container: Container) -> None:
    piece = os.urandom(1 << 20)

    async def many() -> AsyncGenerator[bytes]:
        for _ in range(64):
            yield piece

    collected = Collected()
    async with execute(cluster, container, ["sha256sum"]) as execution:
        assert 0 == await run(execution, collected, stdin=many())
    expected = hashlib.sha256()
    for _ in range(64):
        expected.update(piece)
    assert expected.hexdigest() == collected.stdout.decode().split()[0]
