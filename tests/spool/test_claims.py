"""Bundles: what they hold back, what they wait for, and what they tell other spoolers."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
from scripted import Handler, drop, receipt, spooling

from registry_spooler.spool.claim import hear_claim, tell_claim
from registry_spooler.spool.entry import Arrival, Entry, parse_name
from registry_spooler.spool.identity import look_at
from registry_spooler.spool.lock import leave_note, try_lock


async def test_a_bundle_waits_for_an_earlier_file_and_a_later_file_for_the_bundle(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    read, go_on = anyio.Event(), anyio.Event()

    async def hold(*_: object) -> None:
        await go_on.wait()

    handler.first("a:1.tar", hold)
    handler.bundles["@all.tar"] = ("a", "b")
    handler.on_claim = read.set
    for name in ("a:1.tar", "@all.tar", "b:1.tar", "c:1.tar"):
        drop(spool_directory, name)
    async with spooling(spool_directory, handler) as running:
        with anyio.fail_after(10):
            await read.wait()
        await running.until_done("c:1.tar")
        assert handler.running == ["a:1.tar"]
        assert [file.name for file in running.board.waiting()] == ["@all.tar", "b:1.tar"]
        assert running.board.running()[0].name == "a:1.tar"
        go_on.set()
        await running.until_done("a:1.tar", "@all.tar", "b:1.tar")
    assert [name for name, _ in handler.pushes] == ["c:1.tar", "a:1.tar", "@all.tar", "b:1.tar"]
    assert receipt(spool_directory, "@all.tar")["attempts"] == 1
    assert [message for message in caplog.messages if "@all.tar" in message][:3] == [
        "pushing @all.tar (7 B)",
        "@all.tar waits for earlier files of its repositories",
        "pushing @all.tar (7 B)",
    ]


async def test_two_spoolers_keep_the_order_around_a_bundle(spool_directory: Path) -> None:
    """The second one hears from the first what the bundle is about, and does what it is not about."""
    one, other = Handler(), Handler()
    go_on = anyio.Event()

    async def hold(*_: object) -> None:
        await go_on.wait()

    for handler in (one, other):
        handler.bundles["@all.tar"] = ("a", "b")
        handler.first("@all.tar", hold)
    drop(spool_directory, "@all.tar")
    async with spooling(spool_directory, one) as running:
        await running.until(lambda: one.running == ["@all.tar"])
        async with spooling(spool_directory, other) as second:
            await second.until_ready()
            for name in ("a:1.tar", "c:1.tar", "b:1.tar"):
                drop(spool_directory, name)
            await running.until(lambda: {"c:1.tar"} <= {name for name, _ in [*one.pushes, *other.pushes]})
            await second.until(lambda: {file.name for file in second.board.waiting()} == {"a:1.tar", "b:1.tar"})
            go_on.set()
            await running.until(lambda: not [name for name in os.listdir(spool_directory) if name[0] not in ".@"])
    everything = [*one.pushes, *other.pushes]
    assert sorted(name for name, _ in everything) == ["@all.tar", "a:1.tar", "b:1.tar", "c:1.tar"]
    finished = {name: receipt(spool_directory, name)["finished"] for name in ("@all.tar", "a:1.tar", "b:1.tar")}
    assert min(finished, key=lambda name: finished[name]) == "@all.tar"


async def test_a_file_that_is_replaced_during_its_push_is_new_in_every_respect(
    spool_directory: Path, handler: Handler
) -> None:
    for _ in range(20):
        handler.first("app.tar", lambda *_: drop(spool_directory, "app.tar", b"new content"))
        drop(spool_directory, "app.tar", b"old content")
        async with spooling(spool_directory, handler) as running:
            await running.until_done("app.tar")
            await running.until(lambda: running.board.queue_depth == 0)
        assert handler.pushes[-1] == ("app.tar", b"new content")
        assert receipt(spool_directory, "app.tar")["attempts"] == 1


def test_what_is_said_of_one_content_does_not_hold_for_another(tmp_path: Path) -> None:
    locks, path = tmp_path / "locks", tmp_path / "@all.tar"
    locks.mkdir()
    path.write_bytes(b"one")
    entry = bundle(path)
    lock = try_lock(locks, entry.lock_key)
    assert lock is not None
    assert hear_claim(locks, entry) == ()
    tell_claim(locks, entry, entry.identity, {"team/b", "team/a"})
    assert hear_claim(locks, entry) == ("team/a", "team/b")
    path.write_bytes(b"another")
    assert hear_claim(locks, bundle(path)) == ()
    lock.release()
    assert hear_claim(locks, entry) == ()


@pytest.mark.parametrize(
    "note", [b"", b"{", b'["1.2.3", ["team/a"', b"null", b"7", b'["a", 3]', b'{"a": 1, "b": 2}', b"\xff"]
)
def test_what_is_no_claim_says_nothing(tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "@all.tar"
    path.write_bytes(b"one")
    entry = bundle(path)
    lock = try_lock(tmp_path, entry.lock_key)
    assert lock is not None
    leave_note(tmp_path, entry.lock_key, note)
    assert hear_claim(tmp_path, entry) == ()
    lock.release()


def bundle(path: Path) -> Entry:
    return Entry(name=path.name, path=path, parsed=parse_name(path.name), identity=look_at(path), arrival=Arrival.FOUND)
