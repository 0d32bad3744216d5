"""Execs that the daemon does the work of: real processes, pipes and sockets, and what kills them."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from registry_spooler.cli.registry_client.handover import TAKEN, greeting, is_private, request, socket_paths
from registry_spooler.cli.registry_client.remote_end import SharedRegistry
from registry_spooler.cli.registry_options import RegistrySettings
from registry_spooler.daemon import remote_jobs
from registry_spooler.daemon.remote_jobs import RemoteJobs
from registry_spooler.health.remote import RemoteWork
from registry_spooler.push.delta_bases import SignatureStore
from registry_spooler.push.layer_cache import KnownBlobs
from support.cluster.apiserver import ApiServer
from support.cluster.wire import Wire
from support.images import archives
from support.images.archive_parts import Image, big_layer
from support.programs.daemon_calls import Daemon, RemoteCall, settings
from support.programs.running_spooler import program
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

LOST = 143
# Developers without root run the rest; the gate's machine is root's, and skips none of them.
BY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file, or a process, to another user")
SMALL_BYTES = 14 << 20
"""More than the small program has, and far less than the whole."""
BLOB = os.urandom(3 << 20)


@pytest.fixture
def daemon(spool: Path, registry: RunningRegistry) -> Iterator[Daemon]:
    with Daemon(spool, registry.url) as running:
        yield running


def archive(*blobs: bytes) -> bytes:
    """A thin archive of blobs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for blob in blobs:
            member = tarfile.TarInfo(f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}")
            member.size = len(blob)
            tar.addfile(member, io.BytesIO(blob))
    return buffer.getvalue()


def receiving(environment: dict[str, str], repository: str, stdin_bytes: int) -> RemoteCall:
    return RemoteCall(environment, "receive", "--blobs", "--", repository, stdin_bytes=stdin_bytes)


def begin(call: RemoteCall, content: bytes) -> None:
    """Send half, and wait until the work has begun."""
    call.write(content[: len(content) // 2])
    call.line(lambda line: "progress" in line)


@dataclass
class Pusher:
    """A user outside the cluster."""

    kubeconfig: Path
    folder: Path

    async def start(self, content: bytes, reference: str) -> asyncio.subprocess.Process:
        path = self.folder / "image.tar"
        path.write_bytes(content)
        return await asyncio.create_subprocess_exec(
            program("kubectl-spool"),
            *("push", f"--kubeconfig={self.kubeconfig}", "--quiet", str(path), reference),
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def push(self, content: bytes, reference: str) -> tuple[int | None, str]:
        process = await self.start(content, reference)
        _, said = await process.communicate()
        return process.returncode, said.decode()


def memory_bytes(call: RemoteCall) -> int:
    text = Path(f"/proc/{call.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


def test_the_daemon_does_the_work(daemon: Daemon, repository: str) -> None:
    content = archive(BLOB)
    with receiving(daemon.settings, repository, len(content)) as call:
        begin(call, content)
        (transfer,) = daemon.status()["transfers"]
        used = memory_bytes(call)
        call.write(content[len(content) // 2 :])
        assert 0 == call.ended()
    assert {"blobs": {"uploaded": 1, "existing": 0, "mounted": 0}, "uploaded_bytes": len(BLOB)} == json.loads(
        call.stdout
    )
    assert {"done": True, "stdout_bytes": len(call.stdout), "code": 0} == call.last_word
    assert used < SMALL_BYTES
    assert ("receive", repository, None, len(content)) == (
        transfer["command"],
        transfer["reference"],
        transfer["ahead"],
        transfer["bytes_total"],
    )
    after = daemon.status()
    assert ({"receive_done": 1}, []) == (after["calls"], after["transfers"])
    assert (len(content), len(call.stdout)) == (after["received_bytes"], after["sent_bytes"])


def test_what_fails_is_told_as_ever(daemon: Daemon, repository: str) -> None:
    size = 8 << 20
    with RemoteCall(daemon.settings, "receive", "--", "NO:GOOD", stdin_bytes=size) as call:
        call.write(bytes(size))  # it would stop here if nobody read what comes behind an error
        assert 2 == call.ended()
    assert ("InvalidReference", 2, False) == tuple(call.error[name] for name in ("kind", "code", "temporary"))
    with RemoteCall(daemon.settings, "inspect", "--", f"{repository}:none") as call:
        assert 3 == call.ended()
    with RemoteCall(daemon.settings, "nonsense") as call:
        assert 2 == call.ended()
    assert "UsageError" == call.error["kind"]
    assert {"receive_failed": 1, "inspect_failed": 1, "other_failed": 1} == daemon.status()["calls"]


def test_large_answers_come_whole(daemon: Daemon, repository: str) -> None:
    name = f"{repository}:v1".replace("/", "\\")
    daemon.spool.drop(name, BLOB)
    daemon.spool.receipt(name)
    with RemoteCall(daemon.settings, "pull", "--unpack", "--", f"{repository}:v1") as call:
        assert 0 == call.ended()
    assert BLOB == call.stdout
    assert len(BLOB) == call.last_word["stdout_bytes"]


def test_a_killed_program_takes_its_work_along(daemon: Daemon, repository: str) -> None:
    content = archive(BLOB)
    with receiving(daemon.settings, repository, len(content)) as call:
        begin(call, content)
        call.process.kill()
        daemon.wait_for_log(f"remote receive {repository}: cancelled")
    assert {"receive_cancelled": 1} == daemon.status()["calls"]
    with receiving(daemon.settings, repository, len(content)) as call:
        call.write(content)
        assert 0 == call.ended()


def test_a_caller_who_hangs_up_ends_the_work(daemon: Daemon, repository: str) -> None:
    content = archive(BLOB)
    with receiving(daemon.settings, repository, len(content)) as call:
        begin(call, content)
        call.hang_up()
        assert LOST == call.ended()
        daemon.wait_for_log(f"remote receive {repository}: cancelled")
    assert call.last_word is None
    (daemon.spool.folder / "waits.tar~").touch()
    with RemoteCall(daemon.settings, "wait", "--", "waits.tar~") as call:
        call.hang_up()
        call.ended()
        daemon.wait_for_log("remote wait : (cancelled|failed)")


def test_a_killed_daemon_leaves_no_last_word(daemon: Daemon, repository: str) -> None:
    content = archive(BLOB)
    with receiving(daemon.settings, repository, len(content)) as call:
        begin(call, content)
        daemon.kill()
        assert LOST == call.ended()
        assert call.last_word is None
    daemon.start()  # over the socket that the dead one left
    with receiving(daemon.settings, repository, len(content)) as call:
        begin(call, content)
        assert memory_bytes(call) < SMALL_BYTES


def test_a_daemon_that_stops_says_so(daemon: Daemon, repository: str) -> None:
    content = archive(BLOB)
    with receiving(daemon.settings, repository, len(content)) as call:
        begin(call, content)
        assert 0 == daemon.terminate()
        assert 0 != call.ended()
    assert ("SpoolerStopping", True) == (call.error["kind"], call.error["temporary"])
    assert not any(Path(path).exists() for path in socket_paths(str(daemon.spool.folder)))
    daemon.start()


def test_ten_at_once_take_turns(daemon: Daemon, repository: str) -> None:
    contents = [archive(BLOB, bytes((number,)) * 1000) for number in range(10)]
    calls = [receiving(daemon.settings, repository, len(content)) for content in contents[:4]]
    for call, content in zip(calls, contents, strict=False):
        begin(call, content)
    for number, content in enumerate(contents[4:]):
        calls.append(receiving(daemon.settings, repository, len(content)))
        assert {"waiting": 4 + number} == calls[-1].line(lambda line: "waiting" in line)
    status = daemon.status()
    assert (4, 6) == (status["running"], status["waiting"])
    calls[4].process.kill()
    calls[5].line(lambda line: line.get("waiting") == 4)
    for number, (call, content) in enumerate(zip(calls, contents, strict=True)):
        if number != 4:
            call.write(content[len(content) // 2 if number < 4 else 0 :])
    assert [0, 0, 0, 0, -9, 0, 0, 0, 0, 0] == [call.ended() for call in calls]
    for call in calls:
        call.__exit__()
    assert {"receive_done": 9, "receive_cancelled": 1} == daemon.status()["calls"]


def test_those_who_come_and_go_leave_no_descriptor(daemon: Daemon, repository: str) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    def call() -> None:
        with RemoteCall(daemon.settings, "tags", "--", repository) as tags:
            tags.ended()

    call()
    before = descriptors()
    for _ in range(5):
        call()
    assert before == descriptors()


def test_shared_descriptors_stay_as_they_were(daemon: Daemon, repository: str) -> None:
    content = archive(BLOB)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stdin, os.fdopen(write, "wb", buffering=0) as sender:
        command = [program("registry-client"), "--remote", "--stdin-bytes", str(len(content))]
        process = subprocess.Popen(
            [*command, "receive", "--blobs", "--", repository],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", **daemon.settings},
        )
        sender.write(content)
        assert 0 == process.wait(60)
        assert not fcntl.fcntl(stdin, fcntl.F_GETFL) & os.O_NONBLOCK
        # No pipe to write to: the daemon does not work for it.
        assert {} == daemon.status()["calls"]


def test_other_settings_are_no_work_for_the_daemon(daemon: Daemon, make_registry, repository: str) -> None:
    other = make_registry()
    with RemoteCall(settings(daemon.spool.folder, other.url), "list", "--json") as call:
        assert 0 == call.ended()
    assert b"[]\n" == call.stdout
    assert {} == daemon.status()["calls"]


@pytest.mark.parametrize("greets", [greeting() + b"1", b"", None])
def test_a_daemon_of_another_version_is_given_nothing(tmp_path: Path, greets: bytes | None) -> None:
    path = next(socket_paths(str(tmp_path)))
    Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        try:
            with RemoteCall(settings(tmp_path, "localhost:1"), "failed", "--json") as call:
                connection, _ = listener.accept()
                with connection:
                    if greets is not None:
                        connection.send(greets)
                        assert b"" == connection.recv(1)
                assert 0 == call.ended()
        finally:
            os.unlink(path)
    assert b"[]\n" == call.stdout


def test_a_folder_that_others_can_enter_is_not_trusted(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir(mode=0o700)
    link.symlink_to(folder)
    assert [True, False, False] == [is_private(str(path)) for path in (folder, link, tmp_path / "none")]
    folder.chmod(0o701)
    assert not is_private(str(folder))


@BY_ROOT
def test_a_folder_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    assert is_private(str(folder))
    os.chown(folder, 65534, 65534)
    assert not is_private(str(folder))


CONNECT = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
    "s.connect(sys.argv[1]); print(s.recv(99))"
)


@BY_ROOT
def test_another_user_is_not_greeted(daemon: Daemon) -> None:
    (path,) = (Path(path) for path in socket_paths(str(daemon.spool.folder)) if Path(path).exists())
    command = ["/usr/bin/python3", "-c", CONNECT, str(path)]
    refused = subprocess.run(command, user=65534, capture_output=True, check=False)
    assert b"PermissionError" in refused.stderr
    path.chmod(0o777)
    elsewhere = path.parents[1] / f"registry-spooler-test-{os.getpid()}"
    os.link(path, elsewhere)
    try:
        command[-1] = str(elsewhere)
        ignored = subprocess.run(command, user=65534, capture_output=True, check=True)
    finally:
        elsewhere.unlink()
    assert b"b''\n" == ignored.stdout


@pytest.fixture
async def pusher(api: ApiServer, daemon: Daemon, registry: RunningRegistry, kubeconfig: Path, tmp_path: Path) -> Pusher:
    """`kubectl spool`, and a pod in which the daemon runs."""
    api.registry = registry.url
    return Pusher(kubeconfig, tmp_path)


async def test_an_image_is_pushed_by_the_daemon(
    pusher: Pusher, api: ApiServer, daemon: Daemon, registry: RunningRegistry, repository: str
) -> None:
    image = Image(layers=(big_layer(2 << 20, seed=1), big_layer(1 << 20, seed=2)))
    for tag in ("1", "2"):
        code, said = await pusher.push(archives.podman_docker(image), f"{repository}:{tag}")
        assert 0 == code, said
    assert tuple(image.diff_ids) == Reader(registry).image(repository, "2").diff_ids
    assert ["requests"] == [running.command[4] for running in api.executions[-1:]]
    assert SMALL_BYTES > max(running.peak_bytes for running in api.executions)
    calls = daemon.status()["calls"]
    assert {"missing_done", "signature_done", "receive_done"} == calls.keys()


async def test_all_blobs_of_an_image_are_one_question(pusher: Pusher, daemon: Daemon, repository: str) -> None:
    image = Image(layers=tuple(big_layer(1 << 16, seed=seed) for seed in range(10)))
    await pusher.push(archives.podman_docker(image), f"{repository}:1")
    before = daemon.status()["calls"]
    code, said = await pusher.push(archives.podman_docker(image), f"{repository}:2")
    assert 0 == code, said
    after = daemon.status()["calls"]
    assert {"missing_done": 1, "receive_done": 1} == {
        name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)
    }


async def test_who_has_to_wait_is_told(pusher: Pusher, daemon: Daemon, repository: str) -> None:
    content = archive(BLOB)
    others = [receiving(daemon.settings, repository, len(content)) for _ in range(4)]
    for other in others:
        begin(other, content)
    pushing = await pusher.start(archives.crane(Image(layers=(big_layer(1 << 20, seed=3),))), f"{repository}:1")
    assert pushing.stderr is not None
    assert b"kubectl spool: 4 transfers ahead of yours; waiting\n" == await pushing.stderr.readline()
    for other in others:
        other.write(content[len(content) // 2 :])
    assert 0 == await pushing.wait()
    for other in others:
        assert 0 == other.ended()
        other.__exit__()
    pushing._transport.close()


async def test_a_push_survives_a_daemon_that_is_started_anew(
    pusher: Pusher, daemon: Daemon, wire: Wire, registry: RunningRegistry, repository: str
) -> None:
    image = Image(layers=(big_layer(8 << 20, seed=4),))
    wire.bytes_per_second = 4 << 20
    pushing = await pusher.start(archives.crane(image), f"{repository}:1")
    await anyio.to_thread.run_sync(daemon.wait_for_log, "remote missing .*: done")
    await anyio.to_thread.run_sync(daemon.terminate)
    await anyio.to_thread.run_sync(daemon.start)
    _, said = await pushing.communicate()
    assert 0 == pushing.returncode, said
    assert tuple(image.diff_ids) == Reader(registry).image(repository, "1").diff_ids


async def test_what_nobody_expects_is_told_and_goes_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> int:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(remote_jobs, "run_for", breaks)
    stdin, sender = os.pipe()
    answer, stdout = os.pipe()
    lines, stderr = os.pipe()
    work = RemoteWork()
    jobs = RemoteJobs(Path("/"), SharedRegistry(RegistrySettings(), None, KnownBlobs(None), SignatureStore(None)), work)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [request(["0", "list"])], [stdin, stdout, stderr])
        ours.setblocking(False)
        await jobs._serve(ours)
        assert [greeting(), TAKEN, b"\x01"] == [theirs.recv(99) for _ in range(3)]
    for descriptor in (stdin, stdout, stderr, sender):
        os.close(descriptor)
    with os.fdopen(lines) as stream:
        error, last_word = map(json.loads, stream)
    os.close(answer)
    assert ("InternalError", 1) == (error["kind"], last_word["code"])
    assert {("list", "failed"): 1} == work.calls


def test_it_starts_with_next_to_nothing() -> None:
    loaded = "import registry_spooler.cli.registry_client.handover, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("registry_spooler")}
    heavy = {"asyncio", "typing", "json", "click", "anyio", "aiohttp", "orjson", "hashlib"}
    assert {
        "registry_spooler",
        "registry_spooler.version",
        "registry_spooler.cli",
        "registry_spooler.cli.registry_client",
        "registry_spooler.cli.registry_client.handover",
    } == ours
    assert heavy.isdisjoint(done.stdout.split())
