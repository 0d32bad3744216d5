from __future__ import annotations

from pathlib import Path

import orjson

from registry_spooler.health.remote import RemoteTransfer
from registry_spooler.progress import Progress
from registry_spooler.spool.state import OddEntryShown
from support.health.health_port import HealthPort
from support.health.scripted_state import ScriptedState, busy_state, deferred, failure, receipt, running, waiting

ESCAPE, C1_ESCAPE, OVERRIDE = "\x1b", "\x9b", "\u202e"


async def test_an_empty_spool(port: HealthPort, tmp_path: Path) -> None:
    status, document = await port.json("/status")

    assert 200 == status
    assert ("1.2.3", True, True) == (document["version"], document["live"], document["ready"])
    assert {"address": "http://localhost:5000", "up": True} == {
        key: document["registry"][key] for key in ("address", "up")
    }
    assert str(tmp_path) == document["spool"]["directory"]
    assert 0 <= document["uptime_seconds"] < 60
    for name in ("running", "waiting", "deferred", "receipts", "failures", "odd"):
        assert [] == document[name]
    assert {
        "depth": 0,
        "running": 0,
        "waiting": 0,
        "deferred": 0,
        "elsewhere": 0,
        "oldest_waiting_seconds": 0.0,
        "last_success": None,
        "last_success_seconds_ago": None,
    } == document["queue"]


async def test_a_busy_spool(port: HealthPort, state: ScriptedState) -> None:
    state.__dict__.update({key: value for key, value in busy_state().__dict__.items() if not key.startswith("on_job_")})

    _, document = await port.json("/status")

    first, bundle, delete = document["running"]
    assert {
        "file": "team\\shop\\api:2026.11.3.tar.gz",
        "action": "push",
        "reference": "team/shop/api:2026.11.3",
        "attempt": 1,
        "bytes_total": 1_340_000_000,
        "bytes_done": 415_000_000,
        "bytes_sent": 310_000_000,
        "bytes_skipped": 98_000_000,
    }.items() <= first.items()
    assert (None, 2) == (bundle["reference"], bundle["attempt"])
    assert "delete" == delete["action"]
    assert ["team\\worker-1.tar", "team\\worker-2.tar", "team\\worker-3.tar"] == [
        file["file"] for file in document["waiting"]
    ]
    assert (3, "status") == (document["deferred"][0]["attempts"], document["deferred"][0]["reason"])
    assert 15 < document["deferred"][0]["next_try_in_seconds"] <= 20
    assert ["registry.k8s.io/pause:3.10", "team/shop/web:2026.11.2", "alpine:3.22"] == [
        record["reference"] for record in document["receipts"]
    ]
    assert "Team\\Shop.tar" == document["failures"][0]["file"]
    assert {"delete_done": 12, "push_deferred": 5, "push_done": 1287, "push_failed": 1} == document["totals"]["jobs"]


async def test_what_waits_behind_a_file_that_is_put_off_says_so(port: HealthPort, state: ScriptedState) -> None:
    state.deferred_files = [deferred("app:1.tar", "app:1", "the registry answered 500")]
    state.waiting_files = [
        waiting("app:2.tar", "app:2", seconds=5, behind="app:1.tar"),
        waiting("other.tar", "other:latest", seconds=5),
    ]

    _, document = await port.json("/status")

    assert ["app:1.tar", None] == [file["behind"] for file in document["waiting"]]
    assert 60 < document["deferred"][0]["seconds"] < 120


async def test_it_stays_small_however_much_there_is(port: HealthPort, state: ScriptedState) -> None:
    long = "the registry said " + "no " * 100_000
    state.waiting_files = [waiting(f"app-{n}.tar", f"app-{n}") for n in range(10_000)]
    state.running_jobs = [running(f"app-{n}.tar", f"app-{n}") for n in range(500)]
    state.deferred_files = [deferred(f"app-{n}.tar", f"app-{n}", long) for n in range(200)]
    state.odd = tuple(OddEntryShown(f"odd-{n}", "socket") for n in range(10_000))
    state.failures.extend(failure(f"app-{n}.tar", long) for n in range(50))
    state.receipts.extend({**receipt("app:1"), "images": [receipt("app:1")] * 5_000} for _ in range(50))

    _, _, text = await port.get("/status")

    document = orjson.loads(text)
    assert 10_000 == document["queue"]["waiting"]
    assert (100, 100, 100, 20, 20) == tuple(
        len(document[name]) for name in ("waiting", "running", "deferred", "failures", "receipts")
    )
    assert len(text) < 400_000


async def test_nothing_in_it_moves_a_terminal(port: HealthPort, state: ScriptedState) -> None:
    name = f"a{ESCAPE}[2J{C1_ESCAPE}31m{OVERRIDE}gnp\u2066\u200b\x7f\udcff.tar"
    state.waiting_files = [waiting(name, None)]
    state.failures.append(failure(name, name))
    state.watching.set(False, name)

    for path in ("/status", "/live", "/ready"):
        async with port.session.get(port.url + path) as answer:
            body = await answer.read()
        assert not any(not (char.isprintable() or char == "\n") for char in body.decode()), path
        orjson.loads(body)

    assert name.replace("\udcff", "\\xff") == (await port.json("/status"))[1]["failures"][0]["file"]


async def test_a_file_that_failed_again_is_listed_once(port: HealthPort, state: ScriptedState) -> None:
    state.failures.extend([failure("a.tar", "first"), failure("b.tar", "only"), failure("a.tar", "second")])
    failures = (await port.json("/status"))[1]["failures"]
    assert [("a.tar", "second"), ("b.tar", "only")] == [(record["file"], record["error"]) for record in failures]


async def test_what_callers_from_outside_are_doing(port: HealthPort) -> None:
    push = RemoteTransfer(command="receive", reference="app:v1", progress=Progress(bytes_total=10, bytes_done=4))
    port.remote.transfers = [push, RemoteTransfer(command="pull", ahead=2)]
    port.remote.count("missing", "done", received_bytes=100, sent_bytes=7)
    port.remote.count("--nonsense", "failed", received_bytes=0, sent_bytes=0)

    remote = (await port.json("/status"))[1]["remote"]

    assert (1, 1, 100, 7) == tuple(remote[name] for name in ("running", "waiting", "received_bytes", "sent_bytes"))
    assert {"missing_done": 1, "other_failed": 1} == remote["calls"]
    assert [("receive", "app:v1", None, 10, 4), ("pull", None, 2, 0, 0)] == [
        tuple(shown[name] for name in ("command", "reference", "ahead", "bytes_total", "bytes_done"))
        for shown in remote["transfers"]
    ]
