"""`publish`: a file into the spool directory, byte for byte, over connections that break."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import ExecCut, KubeError, RemoteError
from registry_spooler.kubernetes.pods import Container
from registry_spooler.kubernetes.redial import RateLimit, Redial
from registry_spooler.kubernetes.remote_session import Input, Remote
from registry_spooler.kubernetes.transfer.send import publish
from registry_spooler.oci.digest import Digest
from support.cluster.apiserver import ApiServer
from support.cluster.wire import Wire

SIZE = 4 << 20
QUICK = Redial(first_pause_seconds=0.01)


@pytest.fixture
def remote(cluster: Cluster, container: Container) -> Remote:
    return Remote(cluster, container)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


async def test_a_file_arrives(remote: Remote, file: Path, api: ApiServer) -> None:
    told: list[tuple[int, int]] = []
    published = await publish(remote, file, "app.tar", redial=QUICK, on_sent=lambda *pair: told.append(pair))
    assert file.read_bytes() == (api.spool / "app.tar").read_bytes()
    assert ["app.tar"] == os.listdir(api.spool)
    assert (Digest.of(file.read_bytes()), SIZE) == (published.digest, published.size)
    assert ((0, SIZE), (SIZE, SIZE)) == (told[0], told[-1])
    assert all(code in (0, -15) for code in await api.all_ended())


async def test_an_empty_file(remote: Remote, tmp_path: Path, api: ApiServer) -> None:
    (tmp_path / "empty").touch()
    await publish(remote, tmp_path / "empty", "nothing.txt", redial=QUICK)
    assert b"" == (api.spool / "nothing.txt").read_bytes()


async def test_a_cut_at_half_costs_what_was_on_the_wire(remote: Remote, file: Path, api: ApiServer, wire: Wire) -> None:
    await remote.version()
    before = wire.sent
    wire.cut_after(sent=SIZE // 2)
    # Time for what was cut off to end: what it still writes is what need not be sent again.
    await publish(remote, file, "app.tar", redial=Redial(first_pause_seconds=3))
    assert 1 == wire.cuts
    assert file.read_bytes() == (api.spool / "app.tar").read_bytes()
    assert wire.sent - before < SIZE * 1.25


@pytest.mark.parametrize("at", [0, 700, 2500, 5000, SIZE, SIZE + 20_000])
async def test_a_cut_anywhere(remote: Remote, file: Path, api: ApiServer, wire: Wire, at: int) -> None:
    wire.cut_after(sent=at)
    await publish(remote, file, "app.tar", redial=QUICK)
    assert file.read_bytes() == (api.spool / "app.tar").read_bytes()
    assert ["app.tar"] == os.listdir(api.spool)


@pytest.mark.parametrize("at", [100, 1500, 3000, 4500, 6000, 7500, 9000])
async def test_a_cut_of_the_answers(remote: Remote, file: Path, api: ApiServer, wire: Wire, at: int) -> None:
    wire.cut_after(received=at)
    await publish(remote, file, "app.tar", redial=QUICK)
    assert file.read_bytes() == (api.spool / "app.tar").read_bytes()
    assert ["app.tar"] == os.listdir(api.spool)


async def test_a_connection_that_never_holds_is_given_up(
    remote: Remote, file: Path, wire: Wire, api: ApiServer
) -> None:
    await remote.version()
    wire.cut_each_after = 3000  # enough for a question, too little for its answer to be of use
    with pytest.raises(ExecCut, match="was lost"):
        await publish(remote, file, "app.tar", redial=Redial(first_pause_seconds=0.01, patience_seconds=0))
    assert wire.cuts < 20


async def test_what_arrived_is_compared_before_it_is_kept(remote: Remote, file: Path, api: ApiServer) -> None:
    (api.spool / "app.tar~").write_bytes(bytes(SIZE // 2))
    await publish(remote, file, "app.tar", redial=QUICK)
    assert file.read_bytes() == (api.spool / "app.tar").read_bytes()


async def test_what_arrived_is_kept(remote: Remote, file: Path, api: ApiServer, wire: Wire) -> None:
    (api.spool / "app.tar~").write_bytes(file.read_bytes()[: SIZE - 1000])
    await publish(remote, file, "app.tar", redial=QUICK)
    assert file.read_bytes() == (api.spool / "app.tar").read_bytes()
    assert wire.sent < 100_000


async def test_a_longer_remainder_is_cut_off(remote: Remote, file: Path, api: ApiServer) -> None:
    (api.spool / "app.tar~").write_bytes(file.read_bytes() + b"more")
    await publish(remote, file, "app.tar", redial=QUICK)
    assert file.read_bytes() == (api.spool / "app.tar").read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "$(touch x).tar",
        "a;b.tar",
        "`id`.tar",
        "a'b.tar",
        'a"b.tar',
        "a\nb.tar",
        "-rf.tar",
        "--help",
        "a b.tar",
        "*.tar",
    ],
)
async def test_hostile_names_reach_no_shell(remote: Remote, file: Path, api: ApiServer, name: str) -> None:
    with pytest.raises(RemoteError, match="does not name an image"):
        await publish(remote, file, name, redial=QUICK)
    assert [] == os.listdir(api.spool)


@pytest.mark.parametrize("name", [r"catalog\app:1.2.tar.gz", "%61%70%70.tar", "hello.txt", "@bundle-of $(x).tar"])
async def test_unusual_names(remote: Remote, file: Path, api: ApiServer, name: str) -> None:
    await publish(remote, file, name, redial=QUICK)
    assert [name] == os.listdir(api.spool)


@pytest.mark.parametrize("name", ["../escape.tar", "/etc/passwd", ".failed", "x.tar~", "", "a\\..\\b.tar", "x" * 300])
async def test_names_that_the_spooler_does_not_take(remote: Remote, file: Path, api: ApiServer, name: str) -> None:
    with pytest.raises(RemoteError):
        await publish(remote, file, name, redial=QUICK)
    assert [] == os.listdir(api.spool)


async def test_a_link_is_not_followed(remote: Remote, file: Path, api: ApiServer, tmp_path: Path) -> None:
    (api.spool / "app.tar~").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RemoteError):
        await publish(remote, file, "app.tar", redial=QUICK)
    assert not (tmp_path / "elsewhere").exists()


async def test_a_server_that_refuses_for_a_while(remote: Remote, file: Path, api: ApiServer) -> None:
    api.refuse("/exec", 503, "etcd leader changed", times=4)
    await publish(remote, file, "app.tar", redial=QUICK)
    assert ["app.tar"] == os.listdir(api.spool)


async def test_a_server_that_refuses_for_good(remote: Remote, file: Path, api: ApiServer) -> None:
    api.refuse("/exec", 503, "down for maintenance", times=100)
    with pytest.raises(KubeError, match=r"503 .*down for maintenance"):
        await publish(remote, file, "app.tar", redial=Redial(first_pause_seconds=0.01, patience_seconds=0.1))


async def test_the_rate_limit_holds(cluster: Cluster, container: Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(300_000))
    remote = Remote(cluster, container, rate=RateLimit(400_000))
    started = anyio.current_time()
    await publish(remote, tmp_path / "file", "app.tar", redial=QUICK)
    assert anyio.current_time() - started > 0.5


async def test_a_call_that_starts_late_destroys_nothing(remote: Remote, file: Path, api: ApiServer) -> None:
    (api.spool / "app.tar~").write_bytes(file.read_bytes())
    late = ("deposit", "--offset", "0", "--size", str(SIZE))
    for seen in ((), ("--arrived", "17")):
        with pytest.raises(RemoteError, match="since it was looked"):
            await remote.call(*late, *seen, "--", "app.tar", stdin=Input.of(b"late"))
    with pytest.raises(RemoteError, match="no byte of it came"):
        await remote.call(*late, "--", "app.tar", stdin=Input.of(b""))
    assert file.read_bytes() == (api.spool / "app.tar~").read_bytes()
