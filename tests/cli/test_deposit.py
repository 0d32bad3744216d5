"""`registry-client deposit` and the room of the spool."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.programs.command_client import Client

MIB = 1 << 20


@pytest.mark.parametrize(
    ("arrived", "size", "needed"),
    [(None, 3 * MIB, "3.0 MiB"), (MIB, 3 * MIB, "2.0 MiB")],
    ids=["as a whole", "the rest of it"],
)
def test_what_does_not_fit_is_refused_before_a_byte_is_written(
    client: Client, tmp_path: Path, arrived: int | None, size: int, needed: str
) -> None:
    (tmp_path / "other.tar").write_bytes(os.urandom(MIB))
    if arrived:
        (tmp_path / "app.tar~").write_bytes(os.urandom(arrived))
    known = () if arrived is None else ("--offset", str(arrived), "--arrived", str(arrived))
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}

    said = client.error(
        "deposit", "-d", str(tmp_path), "--spool-limit", "2MiB", "--size", str(size), *known, "app.tar",
        code=1, stdin=bytes(1000),
    )  # fmt: skip

    assert f"it needs {needed}, and the spool has room for" in said
    assert "wait for the queue" in said
    assert before == {path.name: path.stat().st_size for path in tmp_path.iterdir()}


def test_what_does_not_fit_is_refused_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "app.tar~").write_bytes(bytes(1000))
    for size, code in ((MIB, 0), (3 * MIB, 1)):
        client.run(
            "deposit", "-d", str(tmp_path), "--spool-limit", "2MiB", "--probe", "--size", str(size), "app.tar",
            code=code,
        )  # fmt: skip
        assert bytes(1000) == (tmp_path / "app.tar~").read_bytes()


def test_what_fits_is_taken(client: Client, tmp_path: Path) -> None:
    content = os.urandom(MIB)
    client.run("deposit", "-d", str(tmp_path), "--spool-limit", "4Mi", "--size", str(MIB), "app.tar", stdin=content)
    assert content == (tmp_path / "app.tar~").read_bytes()


def test_without_a_limit_the_file_system_decides(client: Client, tmp_path: Path) -> None:
    said = client.error("deposit", "-d", str(tmp_path), "--size", str(1 << 60), "app.tar", code=1, stdin=b"x")
    assert "and the spool has room for" in said
    assert not (tmp_path / "app.tar~").exists()
