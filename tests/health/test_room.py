"""The room of the spool: what its file system has left, and a limit of its own."""

from __future__ import annotations

import os
from pathlib import Path

from registry_spooler.spool.directory.workdir import measure
from support.health.health_port import health_port
from support.health.scripted_state import ScriptedState

MIB = 1 << 20


def fill(path: Path, size_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size_bytes))


def test_without_a_limit_it_is_the_file_systems(tmp_path: Path) -> None:
    found, volume = measure(tmp_path), os.statvfs(tmp_path)
    assert (volume.f_blocks * volume.f_frsize, None) == (found.size_bytes, found.limit_bytes)
    assert found.inodes == volume.f_files


def test_a_limit_counts_everything_below_the_directory(tmp_path: Path) -> None:
    for name in ("waiting.tar", "arriving.tar~", ".failed/bad.tar"):
        fill(tmp_path / name, MIB)
    (tmp_path / "link").symlink_to("/etc/passwd")
    found = measure(tmp_path, 10 * MIB)
    assert 10 * MIB == found.size_bytes == found.limit_bytes
    assert 6 * MIB <= found.free_bytes <= 7 * MIB
    assert "" == found.shortage


def test_a_limit_that_is_overrun_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "too-large.tar", 3 * MIB)
    found = measure(tmp_path, 2 * MIB)
    assert 0 == found.free_bytes
    assert "the spool has 0 B left of its limit of 2.0 MiB" == found.shortage


async def test_status_metrics_and_checks_show_it(tmp_path: Path) -> None:
    fill(tmp_path / "too-large.tar", 3 * MIB)
    async with health_port(ScriptedState(), tmp_path, spool_limit_bytes=2 * MIB) as port:
        _, status = await port.json("/status")
        assert (0, 2 * MIB, 2 * MIB) == tuple(
            status["spool"][name] for name in ("free_bytes", "size_bytes", "limit_bytes")
        )
        assert "warning" == status["checks"]["spool_space"]["state"]
        _, _, text = await port.get("/metrics")
    assert "registry_spooler_spool_free_bytes 0.0" in text
    assert "registry_spooler_spool_size_bytes 2.097152e+06" in text
