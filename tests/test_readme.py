"""What README.md says of the programs is what they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import readme
from registry_spooler.spool.filename import FileName
from running_spooler import RunningSpooler, Spool

TEXT = readme.README.read_text()


@pytest.mark.parametrize(
    "block", [b for b in readme.blocks(TEXT) if b.mark == "help"], ids=lambda block: block.argument
)
def test_help_is_what_the_program_prints(block):
    assert block.content == readme.help_text(block.argument), "./dev readme writes it anew"


@pytest.mark.parametrize(("name", "reference"), readme.names(TEXT))
def test_a_name_means_what_the_table_says(name, reference):
    assert str(FileName.parse(name).reference) == reference


@pytest.mark.parametrize("example", readme.examples(TEXT), ids=lambda example: example.script.splitlines()[0][:40])
def test_an_example_does_what_it_shows(example, make_registry, tmp_path):
    registry, spool = make_registry(), Spool(tmp_path / "spool")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SPOOL": str(spool.folder),
        "REGISTRY_CLIENT_REGISTRY": registry.url,
        "REGISTRY_CLIENT_DIRECTORY": str(spool.folder),
    }
    with RunningSpooler(spool, registry.url):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", example.script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert example.prints is None or done.stdout == example.prints


def test_nothing_is_checked_by_accident():
    assert {block.argument for block in readme.blocks(TEXT) if block.mark == "help"} == {
        "registry-spooler",
        "registry-client",
        "kubectl-spool",
    }
    assert len(readme.names(TEXT)) >= 5
    assert len(readme.examples(TEXT)) >= 1
