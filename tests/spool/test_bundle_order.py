"""Bundles: what they wait for, and what waits for them, in one spooler and between two."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from registry_spooler.spool.attempt import JobLocks
from registry_spooler.spool.directory.files import Identity
from registry_spooler.spool.directory.workdir import WorkDir, open_workdir
from registry_spooler.spool.scheduling.job import Arrival, Entry, parse_name
from support.spool.scripted import Handler, drop, receipt, spooling, visible


async def test_a_bundle_has_the_spool_to_itself(spool_directory: Path, handler: Handler) -> None:
    go_on = anyio.Event()

    async def hold(*_: object) -> None:
        await go_on.wait()

    handler.first("a.tar", hold)
    for name in ("a.tar", "b.tar", "@all.tar", "c.tar"):
        drop(spool_directory, name)
    async with spooling(spool_directory, handler) as running:
        await running.until_done("b.tar")
        assert [file.name for file in running.state.waiting()] == ["@all.tar", "c.tar"]
        go_on.set()
        await running.until_done("c.tar")
    assert [name for name, _ in handler.pushes] == ["b.tar", "a.tar", "@all.tar", "c.tar"]
    assert receipt(spool_directory, "@all.tar")["attempts"] == 1


async def test_two_spoolers_keep_the_order_around_a_bundle(spool_directory: Path) -> None:
    one, other = Handler(), Handler()
    go_on = anyio.Event()

    async def hold(*_: object) -> None:
        await go_on.wait()

    for handler in (one, other):
        handler.first("@all.tar", hold)
    drop(spool_directory, "@all.tar")
    async with spooling(spool_directory, one) as running:
        await running.until(lambda: one.running == ["@all.tar"])
        async with spooling(spool_directory, other) as second:
            await second.until(lambda: second.state.elsewhere_count == 1)
            for name in ("a.tar", "b.tar"):
                drop(spool_directory, name)
            await second.until(lambda: {file.name for file in second.state.waiting()} == {"a.tar", "b.tar"})
            go_on.set()
            await running.until(lambda: not visible(spool_directory))
    everything = [*one.pushes, *other.pushes]
    assert sorted(name for name, _ in everything) == ["@all.tar", "a.tar", "b.tar"]
    finished = {name: receipt(spool_directory, name)["finished"] for name in ("@all.tar", "a.tar", "b.tar")}
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
        handler.first(then, lambda *_: order.append(then))
    one.first(first, hold)
    drop(spool_directory, first, b"old")
    async with spooling(spool_directory, one, jobs_at_once=1) as running:
        await running.until(lambda: one.attempts == [first])
        async with spooling(spool_directory, other) as second:
            await second.until_ready()
            drop(spool_directory, then)
            await second.until(lambda: second.state.elsewhere_count == 1)
            if replaced:
                drop(spool_directory, first, b"new")
            else:
                os.unlink(spool_directory / first)
            await second.until(lambda: then in other.attempts or second.state.elsewhere_count > replaced)
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
            await running.until(lambda: running.state.queue_depth == 0)
        assert handler.pushes[-1] == ("app.tar", b"new content")
        assert receipt(spool_directory, "app.tar")["attempts"] == 1


@pytest.fixture
def room(spool_directory: Path) -> Iterator[WorkDir]:
    room = open_workdir(spool_directory)
    yield room
    room.close()


def test_a_bundle_is_alone_and_what_is_no_bundle_shares_the_spool(room: WorkDir) -> None:
    folder = room.layout.directory.path
    one, other, same = (JobLocks(file_at(folder / name), room) for name in ("a.tar", "b.tar", "a!"))
    bundle, second = (JobLocks(file_at(folder / name), room) for name in ("@x.tar", "@y.tar"))
    assert one.begin()
    assert other.begin()
    assert not same.begin()
    same.end()
    assert not bundle.begin()
    one.end()
    assert not bundle.begin()
    other.end()
    assert bundle.begin()
    assert not second.begin()
    last = JobLocks(file_at(folder / "a.tar"), room)
    assert not last.begin()
    bundle.end()
    assert last.begin()
    last.end()
    assert room.layout.locks.names() == []


def file_at(path: Path) -> Entry:
    path.write_bytes(b"one")
    identity = Identity.of(os.lstat(path))
    return Entry(name=path.name, parsed=parse_name(path.name), identity=identity, arrival=Arrival.FOUND)
