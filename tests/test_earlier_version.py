"""What the manifests and scripts of the 2020 program say is still understood: see docs/from-2020.md."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.programs.running_spooler import RunningSpooler, Spool, program
from support.registries.running_registry import RunningRegistry


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.mark.parametrize("colours", ["1", "True", "f", "force"])
def test_the_variables_of_its_manifest(spool: Spool, registry: RunningRegistry, colours: str) -> None:
    environment = {
        "REGISTRY_SPOOLER_directory": str(spool.folder),
        "REGISTRY_SPOOLER_registry": registry.host,
        "REGISTRY_SPOOLER_verbose": "2",
        "REGISTRY_SPOOLER_queue": "100",
        "REGISTRY_SPOOLER_colorize": colours,
        "REGISTRY_SPOOLER_health_port": "0",
    }
    daemon = RunningSpooler(spool, registry.url, environment=environment)
    daemon.command = [program("registry-spooler")]
    with daemon:
        spool.drop("hello.txt", b"hello world\n")
        assert "hello:latest" == spool.receipt("hello.txt")["reference"]


def test_a_word_that_is_no_boolean_is_refused(spool: Spool) -> None:
    command = [program("registry-spooler"), "--directory", str(spool.folder), "--colorize", "maybe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert 2 == done.returncode
    assert "'maybe' is not one of 'true', 'false', 'force'" in done.stderr


@pytest.mark.parametrize("arguments", [("-vv", "-z", "1", "-l", "log", "list"), ("list", "-v", "-z", "1", "-l", "log")])
def test_the_flags_of_its_client(registry: RunningRegistry, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program("registry-client"), *arguments, "--registry", registry.host],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    said = "registry-client: {} does nothing here: there is no log to write, and no colour in the output"
    assert {said.format(flag) for flag in ("--verbose", "--colorize", "--log")} == set(done.stderr.splitlines())
