"""A push that is cancelled, wherever it stands, leaves no tag, no idle session and nothing running."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from registry_spooler.push.layer_cache import KnownBlobs
from support.images import archives
from support.images.archive_parts import Image, big_layer, layer
from support.programs.desk import Desk
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

TRANSFERS = 2
IMAGE = Image(layers=(big_layer(2 << 20), layer("top")))


@types.coroutine
def _cancelled_at(work: Coroutine[Any, Any, Any], await_number: int) -> Generator[Any, Any, Any]:
    """Run `work`, and cancel the task that runs it when it suspends for the nth time."""
    suspended, send, value = 0, work.send, None
    while True:
        try:
            awaited = send(value)
        except StopIteration as ended:
            return ended.value
        suspended += 1
        if suspended == await_number:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            send, value = work.send, (yield awaited)
        except BaseException as exc:  # noqa: BLE001 - whatever comes in is the work's to handle
            send, value = work.throw, exc


async def _run(work: Coroutine[Any, Any, Any], await_number: int) -> Any:
    return await _cancelled_at(work, await_number)


def open_sessions(registry: RunningRegistry, repository: str) -> list[Path]:
    uploads = registry.storage / "docker/registry/v2/repositories" / repository / "_uploads"
    return list(uploads.iterdir()) if uploads.exists() else []


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_cancelled_at_every_await(
    suffix: str, desk: Desk, reader: Reader, registry: RunningRegistry, repository: str
) -> None:
    tar = archives.podman_docker(IMAGE)
    for await_number in range(1, 1000):
        to = f"{repository}/at-{await_number}"
        desk.known = KnownBlobs()
        push = asyncio.create_task(_run(desk.push(tar, to, suffix=suffix), await_number))
        try:
            await push
        except asyncio.CancelledError:
            # A session whose request is on the wire cannot be called off: where it is now, the answer would have said.
            assert len(open_sessions(registry, to)) <= TRANSFERS, await_number
            assert reader.tags(to) in ([], ["latest"]), await_number
            assert asyncio.all_tasks() == {asyncio.current_task()}, await_number
        else:
            break
    assert await_number > 20
    assert reader.image(to).diff_ids == tuple(IMAGE.diff_ids)


async def test_a_cancelled_push_can_be_done_again(desk: Desk, reader: Reader, repository: str) -> None:
    tar = archives.podman_docker(IMAGE)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(_run(desk.push(tar, repository, suffix=".tgz"), 15))
    assert reader.tags(repository) == []
    await desk.push(tar, repository, suffix=".tgz")
    assert reader.image(repository).diff_ids == tuple(IMAGE.diff_ids)
    assert threading.active_count() < 20
