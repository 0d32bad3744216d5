"""`registry-client failed` and `retry`, beside the files that a real spooler could not push."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from command_client import Client
from registry_spooler.spool.failures import error_name, failure_document

SENTENCE = "it is no tar archive"


def _fail(spool: Path, name: str, content: bytes = b"bytes") -> None:
    """What the spooler leaves of a file that failed."""
    failed = spool / ".failed"
    failed.mkdir(parents=True, exist_ok=True)
    (failed / name).write_bytes(content)
    record = failure_document(name, "push", None, error=SENTENCE, detail="", attempts=1, time=0.0)
    (failed / error_name(name)).write_bytes(orjson.dumps(record))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("App.tar", "App.tar"),
        ("A" * 255, "A" * 255),
        (os.fsdecode(b"\xff\xfe.tar"), r"\xff\xfe.tar"),
        ("Hello.error.json", "Hello.error.json"),
    ],
    ids=["plain", "as long as can be", "no UTF-8", "called like a record"],
)
def test_a_failed_file_is_listed_with_its_reason_and_can_be_tried_again(
    client: Client, tmp_path: Path, name: str, shown: str
) -> None:
    _fail(tmp_path, name)

    (record,) = client.json("failed", "--json", "-d", str(tmp_path))
    assert (shown, SENTENCE) == (record["name"], record["error"])
    assert f"{shown}: {SENTENCE}\n" == client.run("failed", "-d", str(tmp_path)).stdout.decode()

    assert f"{shown}\n" == client.run("retry", "-d", str(tmp_path), shown).stdout.decode()
    assert [name] == [found for found in os.listdir(tmp_path) if not found.startswith(".")]
    assert [] == os.listdir(tmp_path / ".failed")


def test_no_name_reaches_a_terminal_with_control_characters(client: Client, tmp_path: Path) -> None:
    _fail(tmp_path, "red\x1b[31m")
    assert rb"red\x1b[31m: " in client.run("failed", "-d", str(tmp_path)).stdout


def test_a_file_that_is_called_like_a_record_is_not_taken_for_one(client: Client, tmp_path: Path) -> None:
    _fail(tmp_path, "App")
    (tmp_path / ".failed" / error_name("App")).write_bytes(b"somebody's bytes")
    client.run("retry", "-d", str(tmp_path), "App")
    assert b"somebody's bytes" == (tmp_path / ".failed" / "App.error.json").read_bytes()
