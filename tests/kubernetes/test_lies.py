"""An API server as it is in real clusters: what it says of a command's end is wrong, late, or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from registry_spooler.client import SpoolerClient
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import ExecCut, KubeError, KubeForbidden, KubeLoginRejected, RemoteError
from registry_spooler.kubernetes.redial import RateLimit, Redial
from registry_spooler.kubernetes.remote_session import Input, PodSession
from registry_spooler.kubernetes.transfer.send import publish
from registry_spooler.kubernetes.transfer.thin_archive import content_part, pack
from registry_spooler.kubernetes.wire import UnreadableAnswer
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.layout_writer import blob_path
from registry_spooler.oci.reference import Reference
from support.cluster.apiserver import UNREAD_BYTES_MAX, ApiServer
from support.cluster.wire import Wire
from support.registries.playedregistry import running_registry

SELECTOR = "app.kubernetes.io/name=registry-spooler"
REAL = Path(sys.executable).parent / "registry-client"
SIZE = 4 << 20
SECONDS = 30.0
"""Less than the silence after which a connection counts as lost."""
FORBIDDEN = (
    'pods "spooler-0" is forbidden: User "me" cannot {} resource "{}" in API group "" in the namespace "registry"'
)


@pytest.fixture
def session(cluster: Cluster) -> PodSession:
    """Slow enough for something to happen to a file on its way."""
    redial = Redial(first_pause_seconds=0.01)
    return PodSession(cluster, SELECTOR, "spooler", redial=redial, rate=RateLimit(8 << 20))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def script(tmp_path: Path, api: ApiServer) -> Callable[[str], None]:
    """Put a shell script in the place of `registry-client`; in it `$REAL` is the real one."""

    def write(text: str) -> None:
        path = tmp_path / "programs" / "registry-client"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\nREAL={REAL}\n{text}\n")
        path.chmod(0o755)
        api.environment["PATH"] = f"{path.parent}:{os.environ['PATH']}"

    return write


async def has_arrived_though(session: PodSession, file: Path, api: ApiServer, happens: Callable[[], None]) -> bool:
    """Publish a file, and let something happen when half of it has come; return whether it alone is there then."""
    await _publish_and(session, file, api, happens)
    return ["app.tar"] == os.listdir(api.spool) and file.read_bytes() == (api.spool / "app.tar").read_bytes()


async def _publish_and(session: PodSession, file: Path, api: ApiServer, happens: Callable[[], None]) -> None:
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while max((running.received for running in api.executions), default=0) < SIZE // 2:  # noqa: ASYNC110 - a count of another thread's, no event
                await anyio.sleep(0.01)
            happens()

        tasks.start_soon(watch)
        await session.use(lambda remote: publish(remote, file, "app.tar", redial=session.redial))


async def test_success_of_a_lost_kubelet_is_a_cut(
    session: PodSession, api: ApiServer, script: Callable[[str], None]
) -> None:
    script("echo some of it; exec sleep 60")

    async def take(_: bytes) -> None:
        api.lose_kubelet()

    remote = await session.remote()
    with pytest.raises(ExecCut, match="did not say that it was through"):
        await remote.call("pull", "--", "app:v1", on_stdout=take)


async def test_a_file_goes_on_behind_a_lost_kubelet(session: PodSession, file: Path, api: ApiServer) -> None:
    assert await has_arrived_though(session, file, api, api.lose_kubelet)


async def test_a_killed_command_is_a_cut(session: PodSession, file: Path, api: ApiServer) -> None:
    assert await has_arrived_though(session, file, api, lambda: api.executions[-1].process.kill())


async def test_less_output_than_the_last_word_says_is_a_cut(session: PodSession, script: Callable[[str], None]) -> None:
    script("""echo short; echo '{"done": true, "stdout_bytes": 100, "code": 0}' >&2""")
    with pytest.raises(ExecCut, match="6 of 100 bytes"):
        await (await session.remote()).call("list")


async def test_output_behind_the_last_word(session: PodSession, script: Callable[[str], None]) -> None:
    script("""echo '{"done": true, "stdout_bytes": 10, "code": 0}' >&2; echo this; sleep 0.3; echo that""")
    assert b"this\nthat\n" == await (await session.remote()).call("list")


async def test_a_failure_that_says_nothing_else(session: PodSession, script: Callable[[str], None]) -> None:
    script("""echo '{"done": true, "stdout_bytes": 0, "code": 3}' >&2; exit 3""")
    with pytest.raises(RemoteError, match="ended with exit code 3"):
        await (await session.remote()).call("list")


async def test_a_program_of_another_version(session: PodSession, script: Callable[[str], None]) -> None:
    script("""[ "$1" = --version ] && exec $REAL --version; echo "Error: No such option: $1" >&2; exit 2""")
    remote = await session.remote()
    with pytest.raises(RemoteError, match=r"of another version; `kubectl spool doctor` compares them"):
        await session.ask(lambda remote: remote.call("list"))
    assert version("registry-spooler") == await remote.version()


@pytest.mark.parametrize("status", [403, 405, 413])
async def test_a_refusal_by_the_registry_is_told_at_once(
    session: PodSession, api: ApiServer, status: int, repository: str
) -> None:
    def gate(request: web.Request) -> web.Response | None:
        return web.Response(status=status) if request.method in ("POST", "PUT", "PATCH") else None

    api.forgets_status = True
    content = os.urandom(3 * UNREAD_BYTES_MAX)
    part = content_part(blob_path(Digest.of(content)), content)
    session = PodSession(session.cluster, SELECTOR, "spooler")  # without a limit to its rate
    async with running_registry(gate=gate) as registry:
        api.registry = registry.url
        remote = await session.remote()
        with anyio.fail_after(SECONDS), pytest.raises(RemoteError, match=str(status)):
            await remote.call("receive", "--blobs", "--", repository, stdin=pack([part]))


async def test_a_full_disk_is_told_at_once(
    session: PodSession, api: ApiServer, script: Callable[[str], None], tmp_path: Path
) -> None:
    script('ulimit -f 2048; exec $REAL "$@"')
    api.has_daemon = False
    api.forgets_status = True
    with (tmp_path / "large").open("wb") as large:
        large.truncate(3 * UNREAD_BYTES_MAX)
    session = PodSession(session.cluster, SELECTOR, "spooler")
    with anyio.fail_after(SECONDS), pytest.raises(RemoteError, match="File too large"):
        await session.use(lambda remote: publish(remote, tmp_path / "large", "app.tar", redial=session.redial))


@pytest.mark.parametrize(("status", "path"), [(403, "/exec"), (401, "/exec"), (403, "/pods")])
async def test_a_server_that_does_not_know_its_roles_yet(
    session: PodSession, file: Path, api: ApiServer, status: int, path: str
) -> None:
    def restart() -> None:
        api.executions[-1].process.kill()
        api.refuse(path, status, FORBIDDEN.format("get", "pods/exec"), times=20)

    assert await has_arrived_though(session, file, api, restart)


@pytest.mark.parametrize(("status", "kind"), [(403, KubeForbidden), (401, KubeLoginRejected)])
@pytest.mark.parametrize("path", ["/exec", "/pods"])
async def test_a_refusal_at_first_contact_is_final(
    session: PodSession, file: Path, api: ApiServer, status: int, kind: type[KubeError], path: str
) -> None:
    api.refuse(path, status, times=4)
    with pytest.raises(kind):
        await session.use(lambda remote: publish(remote, file, "app.tar", redial=session.redial))
    assert 3 >= sum(request.endswith(path) for request in api.requests)  # one more after a renewed login


@pytest.mark.parametrize(
    ("verb", "resource", "check"),
    [
        ("get", "pods/exec", "get pods --subresource=exec"),
        ("create", "pods/exec", "create pods --subresource=exec"),
        ("list", "pods", "list pods"),
    ],
)
async def test_the_permission_that_is_missing_is_named(
    session: PodSession, api: ApiServer, verb: str, resource: str, check: str
) -> None:
    api.refuse("/exec", 403, FORBIDDEN.format(verb, resource), times=2)
    with pytest.raises(KubeForbidden, match=f"to {verb} {resource} there.*`kubectl auth can-i {check} -n registry`"):
        await (await session.remote()).call("list")


@pytest.mark.parametrize(
    "message",
    [
        "error dialing backend: dial tcp 10.0.0.1:10250: connect: connection refused",
        "error dialing backend: dial unix /run/x.sock: connect: no such file or directory",
        'unable to upgrade connection: container not found ("spooler")',
        "unable to upgrade connection: pod does not exist",
        "Internal error occurred: failed to create exec session: rpc error: code = Unavailable",
    ],
)
@pytest.mark.parametrize("late", [True, False])
async def test_a_kubelet_that_is_away(
    session: PodSession, file: Path, api: ApiServer, message: str, late: bool
) -> None:
    def away() -> None:
        api.executions[-1].process.kill()
        if late:
            api.fail_start(message, times=6)
        else:
            api.refuse("/exec", 500, message, times=12)

    assert await has_arrived_though(session, file, api, away)


async def test_a_kubelet_that_does_not_know_its_pod_yet(session: PodSession, file: Path, api: ApiServer) -> None:
    def restart() -> None:
        api.executions[-1].process.kill()
        api.refuse("/exec", 404, "pod does not exist", times=12)

    assert await has_arrived_though(session, file, api, restart)


async def test_an_api_server_that_is_away(cluster: Cluster, file: Path, api: ApiServer, wire: Wire) -> None:
    retries = 0

    def told(_: KubeError) -> None:
        nonlocal retries
        retries += 1

    def leave() -> None:
        wire.refuses = True
        wire.cut()

    async def come_back() -> None:
        connections = wire.connections
        while wire.connections < connections + 12:  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)
        wire.refuses = False

    redial = Redial(first_pause_seconds=0.001, on_retry=told)
    session = PodSession(cluster, SELECTOR, "spooler", redial=redial, rate=RateLimit(8 << 20))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(come_back)
        assert await has_arrived_though(session, file, api, leave)
    assert 1 <= retries <= 3


@pytest.mark.parametrize("old", ["gone", "going", "of the same name"])
async def test_a_replaced_pod(session: PodSession, file: Path, api: ApiServer, old: str) -> None:
    def replace() -> None:
        api.executions[-1].process.kill()
        if old == "gone":
            api.pods = ("spooler-1",)
        elif old == "going":
            api.pods = ("spooler-0", "spooler-1")
            api.changes["spooler-0"] = {"metadata": {"name": "spooler-0", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
            api.fail_start('unable to upgrade connection: container not found ("spooler")')
        else:
            api.changes["spooler-0"] = {"metadata": {"name": "spooler-0", "uid": "another"}}

    assert await has_arrived_though(session, file, api, replace)


async def test_a_pod_that_has_no_successor_yet(cluster: Cluster, file: Path, api: ApiServer) -> None:
    def vanish() -> None:
        api.executions[-1].process.kill()
        api.pods = ()

    def told(error: KubeError) -> None:
        if "has no pod" in str(error):
            api.pods = ("spooler-1",)

    redial = Redial(first_pause_seconds=0.01, on_retry=told)
    session = PodSession(cluster, SELECTOR, "spooler", redial=redial, rate=RateLimit(8 << 20))
    assert await has_arrived_though(session, file, api, vanish)


async def test_what_a_request_says_of_itself(session: PodSession, api: ApiServer) -> None:
    await (await session.remote()).version()
    assert {f"kubectl-spool/{version('registry-spooler')}"} == api.agents


ASKED: dict[str, Callable[[SpoolerClient], Awaitable[Any]]] = {
    "list": lambda client: client.repositories(),
    "images": lambda client: client.images(),
    "tags": lambda client: client.tags("app"),
    "inspect": lambda client: client.inspect(Reference("app", "v1")),
    "delete": lambda client: client.delete(Reference("app", "v1")),
    "status": lambda client: client.status(),
    "failed": lambda client: client.failed(),
    "wait": lambda client: client.wait("app.tar"),
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    "answer",
    ["lies", "[" * 5000, "7", '"text"', "[7]", '{"digest": 7, "images": 7}', '{"digest": "x", "images": [{}]}'],
)
async def test_a_lying_pod_gets_a_sentence(
    session: PodSession, script: Callable[[str], None], name: str, answer: str
) -> None:
    script(f'A=\'{answer}\'; printf %s "$A"; printf \'{{"done": true, "stdout_bytes": %d, "code": 0}}\\n\' ${{#A}} >&2')
    try:
        found = await ASKED[name](SpoolerClient(session))
    except UnreadableAnswer as exc:
        assert "the pod's answer cannot be read" in str(exc)
    else:
        assert name in ("inspect", "status") and isinstance(found, dict)


@pytest.mark.parametrize(
    "answer", ["7", "{}", '{"present": 7}', '{"size": "x"}', '{"size": -1, "sha256": "", "now": ""}']
)
async def test_a_lying_pod_that_receives(
    session: PodSession, script: Callable[[str], None], file: Path, api: ApiServer, answer: str
) -> None:
    script(f'A=\'{answer}\'; printf %s "$A"; printf \'{{"done": true, "stdout_bytes": %d, "code": 0}}\\n\' ${{#A}} >&2')
    with pytest.raises(UnreadableAnswer, match="the pod's answer cannot be read"):
        await session.use(lambda remote: publish(remote, file, "app.tar", redial=session.redial))


async def test_a_length_that_is_known_is_told(session: PodSession, api: ApiServer) -> None:
    remote = await session.remote()
    await remote.call("deposit", "--size", "5", "--", "a.txt", stdin=Input.of(b"hello"))
    assert b"hello" == (api.spool / "a.txt~").read_bytes()
    assert ["registry-client", "--remote", "--stdin-bytes", "5"] == api.executions[-1].command[:4]
