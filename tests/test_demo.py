"""`./dev demo --once`, without its set-up: the demonstration checks itself, so it only has to say that all was well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.xdist_group("pictures")  # they want the same port
def test_the_demonstration_succeeds(tmp_path):
    program = Path(__file__).with_name("demo.py")

    done = subprocess.run(
        [sys.executable, program, "--once", "--spool", tmp_path / "spool"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 2
    assert "\033[" not in done.stdout
