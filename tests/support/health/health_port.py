"""The health side on a port of its own, over a scripted state, for tests that talk to it as anybody would."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from registry_spooler.health.probes import RegistryPing
from registry_spooler.health.remote import RemoteWork
from registry_spooler.health.server import Health, serve
from registry_spooler.health.status import About
from support.health.scripted_state import ScriptedState


@dataclass
class ScriptedRegistry:
    """Answers a ping, or does what a test tells it to."""

    error: Exception | None = None
    hangs: bool = False
    asked: int = 0
    retries: Counter[str] = field(default_factory=Counter)

    async def ping(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@dataclass
class HealthPort:
    """Asks the health port."""

    health: Health
    session: aiohttp.ClientSession
    state: ScriptedState
    registry: ScriptedRegistry = field(default_factory=ScriptedRegistry)
    remote: RemoteWork = field(default_factory=RemoteWork)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.health.port}"

    async def get(self, path: str, *, accept: str = "*/*") -> tuple[int, str, str]:
        """Status, content type and text."""
        async with self.session.get(self.url + path, headers={"Accept": accept}) as answer:
            return answer.status, answer.headers["Content-Type"], await answer.text()

    async def json(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.json()

    async def ask_registry(self, timeout_seconds: float = 5.0) -> None:
        """Have the registry asked now, and not only when its turn comes."""
        await RegistryPing(self.registry.ping, self.state.registry).ask(timeout_seconds)

    async def send(self, raw: bytes) -> bytes:
        """What comes back for bytes, until the server ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.health.port)
        writer.write(raw)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes by itself, five seconds at the most."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


@asynccontextmanager
async def health_port(
    state: ScriptedState, directory: Path, *, spool_limit_bytes: int | None = None
) -> AsyncIterator[HealthPort]:
    registry = ScriptedRegistry()
    remote = RemoteWork()
    about = About(
        version="1.2.3",
        registry="http://localhost:5000",
        directory=str(directory),
        started=time.time(),
        spool_limit_bytes=spool_limit_bytes,
    )
    async with (
        serve(
            state,
            about,
            ping=registry.ping,
            address="127.0.0.1",
            port=0,
            request_retries=registry.retries,
            remote=remote,
        ) as health,
        aiohttp.ClientSession() as session,
    ):
        await until(lambda: state.registry.since is not None)
        yield HealthPort(health, session, state, registry, remote)
