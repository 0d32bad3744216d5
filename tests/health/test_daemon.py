"""The health port of the real program, beside the real registry."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.programs.idle import wait_until_asleep
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.running_registry import RunningRegistry

if TYPE_CHECKING:
    from conftest import MakeRegistry

PROBE_SECONDS = 30.0
PROBE_INTERVAL_SECONDS = 0.05
HOSTILE = (
    b"<img src=x onerror=alert(1)>.tar",
    b"a\x1b[2J\x1b]0;owned\x07.tar",
    "\u202egnp.tar".encode(),
    b"\xff\xfe\x9b31m.tar",
    b'"} 1\nregistry_spooler_registry_up 0\n.tar',
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def own_registry(make_registry: MakeRegistry) -> RunningRegistry:
    return make_registry()


@pytest.fixture
def spooler(spool: Spool, own_registry: RunningRegistry) -> Iterator[RunningSpooler]:
    with RunningSpooler(spool, own_registry.url) as running:
        yield running


def ask(spooler: RunningSpooler, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(spooler.health_url + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def answers(spooler: RunningSpooler, path: str, status: int) -> str:
    """Probe as a kubelet does, at intervals, until the answer is as expected; its body."""
    deadline = time.monotonic() + PROBE_SECONDS
    while True:
        found, body = ask(spooler, path)
        if found == status:
            return body
        assert time.monotonic() < deadline, body
        time.sleep(PROBE_INTERVAL_SECONDS)


def test_a_registry_that_goes_makes_unready_and_one_that_comes_makes_ready(
    spooler: RunningSpooler, own_registry: RunningRegistry
) -> None:
    answers(spooler, "/ready", 200)

    own_registry.stop()
    checks = json.loads(answers(spooler, "/ready", 503))["checks"]

    assert ["registry"] == [name for name, check in checks.items() if check["state"] == "failing"]
    assert "cannot be reached" in checks["registry"]["detail"]
    assert 200 == ask(spooler, "/live")[0]

    own_registry.start()
    answers(spooler, "/ready", 200)


def test_a_daemon_that_has_nothing_to_do_sleeps(spooler: RunningSpooler, spool: Spool) -> None:
    wait_until_asleep(spooler.process.pid)

    spool.drop("app.tar", b"no archive")
    spool.failure("app.tar")
    wait_until_asleep(spooler.process.pid)

    assert 200 == ask(spooler, "/ready")[0]


def test_hostile_names_do_no_harm_anywhere(spooler: RunningSpooler, spool: Spool) -> None:
    folder = os.fsencode(spool.folder)
    for name in HOSTILE:
        (spool.folder / "content~").write_bytes(b"no archive")
        os.rename(folder + b"/content~", folder + b"/" + name)
    spool.wait_until(lambda: len(os.listdir(spool.folder / ".failed")) == 2 * len(HOSTILE) and not spool.waiting)

    for path in ("/status", "/metrics", "/ready", "/"):
        _, body = ask(spooler, path)
        assert not [char for char in body if not char.isprintable() and char != "\n"], path
    assert len(HOSTILE) == json.loads(ask(spooler, "/status")[1])["spool"]["failed_files"]
    assert "registry_spooler_registry_up 1.0" in ask(spooler, "/metrics")[1]
    assert spooler.log is not None
    for line in spooler.log:
        assert line.isprintable(), line
