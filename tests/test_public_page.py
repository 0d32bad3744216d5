"""`import registry_spooler` gives every public name, and costs nothing before one is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import registry_spooler


@pytest.mark.parametrize("name", registry_spooler.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(registry_spooler, name) is not None
    assert name in dir(registry_spooler)


def test_what_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Spool'"):
        registry_spooler.Spool  # noqa: B018 - asking for it is the test


def test_the_page_alone_imports_the_version_alone() -> None:
    program = (
        "import sys, registry_spooler; print([name for name in sys.modules if name.startswith('registry_spooler.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "['registry_spooler.version']" == done.stdout.strip()
