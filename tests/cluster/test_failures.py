"""Pushes and pulls while parts of the cluster fail: they end well, or say that they did not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cluster.breaks import (
    Break,
    delete_pod,
    kill_registry,
    kill_spooler,
    leave_apiserver_away,
    leave_kubelet_away,
    replace_pod,
    restart_apiserver,
    restart_kubelet,
)
from cluster.image_archives import diff_ids, write_archive
from cluster.installation import Installation, finish
from localcluster.namespaces import wait_until

MEGA = 1 << 20
SIZE_BYTES = 16 * MEGA
RATE = "3M"
"""So that it goes on for five seconds, and is broken in the midst of it."""
BROKEN_AT_BYTES = 2 * MEGA


@pytest.fixture
def installation(installation: Installation) -> Installation:
    """The installation, which has recovered from the test before."""
    installation.wait_until_ready()
    return installation


@pytest.mark.parametrize(
    ("fail", "layers"),
    [
        (restart_apiserver, 4),
        (leave_apiserver_away, 1),
        (restart_kubelet, 4),
        (kill_spooler, 4),
        (kill_registry, 1),
        (replace_pod, 4),
    ],
)
def test_a_push_goes_on(installation: Installation, tmp_path: Path, repository: str, fail: Break, layers: int) -> None:
    archive = write_archive(tmp_path / "app.tar", layers=layers, size_bytes=SIZE_BYTES)
    pushing = installation.start("push", "app.tar", f"{repository}:v1", "--rate-limit", RATE, folder=tmp_path)
    installation.wait_for_upload(repository, BROKEN_AT_BYTES)

    fail(installation)
    pushed = finish(pushing)

    assert 0 == pushed.code, pushed
    installation.wait_until_ready()
    assert pushed.digest == installation.manifest(repository, "v1")[0]
    assert 0 == installation.spool("pull", f"{repository}:v1", "-o", "back.tar", folder=tmp_path).code
    assert diff_ids(archive) == diff_ids(tmp_path / "back.tar")


def test_a_published_file_is_pushed_though_its_pod_is_deleted(
    installation: Installation, tmp_path: Path, repository: str
) -> None:
    write_archive(tmp_path / "app.tar", size_bytes=SIZE_BYTES)
    publishing = installation.start(
        "publish", "app.tar", f"{repository}:v1", "--wait", "--rate-limit", RATE, folder=tmp_path
    )
    installation.wait_for_spooled(BROKEN_AT_BYTES)

    delete_pod(installation)
    published = finish(publishing)

    assert 0 == published.code, published
    installation.wait_until_ready()
    assert published.digest == installation.manifest(repository, "v1")[0]


@pytest.mark.parametrize("fail", [restart_apiserver, kill_registry])
def test_a_pull_to_a_file_goes_on(installation: Installation, tmp_path: Path, repository: str, fail: Break) -> None:
    archive = write_archive(tmp_path / "app.tar", layers=4, size_bytes=SIZE_BYTES)
    assert 0 == installation.spool("push", "app.tar", f"{repository}:v1", folder=tmp_path).code
    pulling = installation.start("pull", f"{repository}:v1", "-o", "back.tar", folder=tmp_path)
    wait_until(lambda: any(size > MEGA for size in _sizes(tmp_path, ".back.tar*")), "the first bytes", None)

    pulling.send_signal(signal.SIGSTOP)  # or it would be through by the time that something fails
    fail(installation)
    pulling.send_signal(signal.SIGCONT)
    pulled = finish(pulling)

    assert 0 == pulled.code, pulled
    assert diff_ids(archive) == diff_ids(tmp_path / "back.tar")


def test_a_pull_to_a_pipe_says_that_it_was_cut(installation: Installation, tmp_path: Path, repository: str) -> None:
    archive = write_archive(tmp_path / "app.tar", layers=4, size_bytes=SIZE_BYTES)
    assert 0 == installation.spool("push", "app.tar", f"{repository}:v1", folder=tmp_path).code
    pulling = installation.start("pull", f"{repository}:v1", folder=tmp_path)
    assert pulling.stdout is not None
    begun = pulling.stdout.read(MEGA)  # the pipe is full then, and the rest is yet to come

    leave_kubelet_away(installation)
    pulled = finish(pulling)

    assert 1 == pulled.code, pulled.stderr
    assert "was lost" in pulled.stderr
    assert len(begun + pulled.stdout_bytes) < archive.stat().st_size


def _sizes(folder: Path, pattern: str) -> list[int]:
    return [path.stat().st_size for path in folder.glob(pattern)]
