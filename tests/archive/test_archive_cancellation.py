"""Reading an archive can be cancelled at every await: it ends at once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import anyio
import pytest

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.source import PipeSource
from support.images import archives
from support.images.archive_parts import COMPRESSORS, Image, big_layer
from support.images.archive_reading import Pipe, measure, read_archive

LARGE = archives.podman_docker(Image(layers=(big_layer(3 << 20), big_layer(2 << 20, seed=2))))
AWAITS_MAX = 2000


@types.coroutine
def stepping(work: Coroutine[Any, Any, None], at: int, then: Callable[[], None]) -> Generator[Any, Any, bool]:
    """Run `work`, and call `then` at its await number `at`; was there one?"""
    steps = work.__await__()
    count, reached, go_on = 0, False, partial(next, steps)
    while True:
        try:
            waited_for = go_on()
        except StopIteration:
            return reached
        if count == at:
            reached = True
            then()
        count += 1
        try:
            yield waited_for
            go_on = partial(next, steps)
        except asyncio.CancelledError as exc:
            go_on = partial(steps.throw, exc)


async def cancel_everywhere(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run `work` again and again, cancelled one await later each time; how many there were."""
    for at in range(AWAITS_MAX):
        reached = False
        with anyio.fail_after(20), anyio.CancelScope() as scope:
            reached = await stepping(work(), at, scope.cancel)
        if not reached and not scope.cancel_called:
            return at
    raise AssertionError("it never ends")


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
async def test_a_file(suffix, compression, tmp_path):
    path = tmp_path / f"archive{suffix}"
    path.write_bytes(COMPRESSORS[suffix](LARGE))

    async def work() -> None:
        await read_archive(path, compression=compression)

    await work()
    before = open_files()
    assert await cancel_everywhere(work) > 10
    assert open_files() == before


async def test_a_pipe_that_stalls():
    async def work() -> None:
        with Pipe() as pipe:
            os.write(pipe.write_fd, LARGE[:60_000])
            with anyio.move_on_after(0.05):
                async with open_archive(PipeSource(pipe.read_fd, name="-")) as archive:
                    async for _ in archive.members():
                        await measure(archive.blob())

    await work()
    before = open_files()
    assert await cancel_everywhere(work) >= 2
    assert open_files() == before
