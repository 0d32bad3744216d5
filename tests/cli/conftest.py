"""What the tests of `registry-client` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.images.posted import Poster
from support.programs.command_client import Client
from support.registries.verify import Registry


@pytest.fixture
def client(registry: Registry, tmp_path: Path) -> Client:
    return Client(registry, tmp_path)


@pytest.fixture
def poster(registry: Registry, repository: str) -> Poster:
    """Puts images into the test's own repository."""
    return Poster(registry, repository)
