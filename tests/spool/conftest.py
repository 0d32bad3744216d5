"""What the tests of the spool share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.spool.scripted import Handler
from support.spool.spooler_nursery import Nursery


@pytest.fixture
def spool_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir()
    return directory


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture(scope="package")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory: hundreds of spools, each of which waits for the disk a dozen times, take too long on one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)
