"""Bundles: what they hold back, what they wait for, and what they tell other spoolers."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from scripted import Handler, drop, receipt, spooling, visible

from registry_spooler.spool.attempt import JobLocks
from registry_spooler.spool.directory.files import Identity, look_at
from registry_spooler.spool.directory.locks import leave_note
from registry_spooler.spool.directory.workdir import WorkDir, open_room
from registry_spooler.spool.scheduling.job import Arrival, Entry, parse_name


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


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize(
    ("first", "then"), [("@all.tar", "a:1.tar"), ("a:1.tar", "@all.tar")], ids=["bundle first", "bundle last"]
)
async def test_what_is_withdrawn_while_it_is_pushed_still_comes_first(
    spool_directory: Path, first: str, then: str, replaced: bool
) -> None:
    """With its name gone, the other spooler does not see it any more; the repository's lock tells of it."""
    one, other = Handler(), Handler()
    go_on, order = anyio.Event(), list[str]()

    async def hold(*_: object) -> None:
        await go_on.wait()
        order.append(first)

    for handler in (one, other):
        handler.bundles["@all.tar"] = ("a", "b")
        handler.first(then, lambda *_: order.append(then))
    one.first(first, hold)
    drop(spool_directory, first, b"old")
    async with spooling(spool_directory, one, jobs_at_once=1) as running:
        await running.until(lambda: one.attempts == [first])
        async with spooling(spool_directory, other) as second:
            await second.until_ready()
            drop(spool_directory, then)
            await second.until(lambda: second.board.elsewhere_count == 1)
            if replaced:
                drop(spool_directory, first, b"new")
            else:
                os.unlink(spool_directory / first)
            await second.until(lambda: then in other.attempts or second.board.elsewhere_count > replaced)
            await anyio.sleep(0.2)
            go_on.set()
            await running.until(lambda: not visible(spool_directory))
    assert order == [first, then]


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


@pytest.fixture
def room(spool_directory: Path) -> Iterator[WorkDir]:
    room = open_room(spool_directory)
    yield room
    room.close()


def test_what_is_said_of_one_content_does_not_hold_for_another(room: WorkDir) -> None:
    path = room.layout.directory.path / "@all.tar"
    path.write_bytes(b"one")
    mine, yours = JobLocks(bundle(path), room), JobLocks(bundle(path), room)
    assert mine.begin()
    assert not yours.begin()
    assert yours.heard() == ()
    mine.tell(look_at(room.layout.directory, path.name), {"team/b", "team/a"})
    assert yours.heard() == ("team/a", "team/b")
    path.write_bytes(b"another")
    assert JobLocks(bundle(path), room).heard() == ()
    mine.end()
    assert yours.heard() == ()


@pytest.mark.parametrize(
    "note", [b"", b"{", b'["1.2.3", ["team/a"', b"null", b"7", b'["a", 3]', b'{"a": 1, "b": 2}', b"[1, [[]]]", b"\xff"]
)
def test_what_is_no_claim_says_nothing(room: WorkDir, note: bytes) -> None:
    path = room.layout.directory.path / "@all.tar"
    path.write_bytes(b"one")
    entry = bundle(path)
    turn = JobLocks(entry, room)
    assert turn.begin()
    leave_note(room.layout.locks, entry.lanes[0], note)
    assert turn.heard() == ()
    turn.end()


def test_a_bundle_gets_the_locks_of_all_its_repositories_or_of_none(room: WorkDir) -> None:
    path = room.layout.directory.path / "@all.tar"
    path.write_bytes(b"one")
    entry = bundle(path)
    one, other = JobLocks(entry, room), JobLocks(single(path.with_name("b.tar")), room)
    assert one.begin()
    assert other.begin()
    entry.claim({"a", "b", "c"})
    assert not one.begin()
    assert len(room.layout.locks.names()) == 2
    other.end()
    assert one.begin()
    assert not other.begin()
    one.end()
    assert room.layout.locks.names() == []


def test_a_bundle_of_more_repositories_than_files_may_be_open_is_pushed_all_the_same(room: WorkDir) -> None:
    path = room.layout.directory.path / "@all.tar"
    path.write_bytes(b"one")
    entry = bundle(path)
    turn = JobLocks(entry, room)
    assert turn.begin()
    entry.claim(f"app{number}" for number in range(500))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
    try:
        assert turn.begin()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(room.layout.locks.names()) == 1
    turn.end()


def bundle(path: Path) -> Entry:
    identity = Identity.of(os.lstat(path))
    return Entry(name=path.name, parsed=parse_name(path.name), identity=identity, arrival=Arrival.FOUND)


def single(path: Path) -> Entry:
    path.write_bytes(b"one")
    return bundle(path)
