"""A state to write, and the health port that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.health.health_port import HealthPort, health_port
from support.health.scripted_state import ScriptedState


@pytest.fixture
def state() -> ScriptedState:
    return ScriptedState()


@pytest_asyncio.fixture
async def port(state: ScriptedState, tmp_path: Path) -> AsyncIterator[HealthPort]:
    """A task of its own enters and leaves the context, as its task group wants it."""
    serving: asyncio.Future[HealthPort] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def serve_until_done() -> None:
        async with health_port(state, tmp_path) as asking:
            serving.set_result(asking)
            await done.wait()

    task = asyncio.create_task(serve_until_done())
    await asyncio.wait({task, serving}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield serving.result()
    finally:
        done.set()
        await task
