"""What the tests of the spool share."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import Handler


@pytest.fixture
def spool_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir()
    return directory


@pytest.fixture
def handler() -> Handler:
    return Handler()
