"""A pusher into the real registry, as the daemon has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry_spooler.registry.registry_client import RegistryClient
from support.programs.desk import Desk
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader


@pytest.fixture
async def desk(registry: RunningRegistry, tmp_path: Path) -> AsyncIterator[Desk]:
    async with RegistryClient(registry.url) as client:
        yield Desk(client, tmp_path)


@pytest.fixture
def reader(registry: RunningRegistry) -> Reader:
    return Reader(registry)
