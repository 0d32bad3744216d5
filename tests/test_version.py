"""The version stands in two places: where the build reads it, and where a program has it without reading anything."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import registry_spooler

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def test_the_version_is_the_same_everywhere() -> None:
    written = tomllib.loads(PROJECT.read_text())["project"]["version"]
    assert written == registry_spooler.__version__ == version("registry-spooler")
