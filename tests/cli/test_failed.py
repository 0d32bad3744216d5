"""`registry-client failed` and `retry`, beside the files that a real spooler could not push."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import orjson
import pytest

from registry_spooler.spool.records import error_name, failure_document
from support.programs.command_client import Client

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


def test_a_name_that_was_wrong_is_mended_as_the_file_goes_back(client: Client, tmp_path: Path) -> None:
    for name in ("Wrong.tar", "Other.tar", "More.tar"):
        _fail(tmp_path, name, name.encode())
    spool = ("-d", str(tmp_path))
    assert ["right:1.tar"] == client.lines("retry", *spool, "--as", "right:1", "Wrong.tar")
    assert [r"team\app:v2.tar"] == client.lines("retry", *spool, "--as", "team/app:v2", "Other.tar")
    assert b"Wrong.tar" == (tmp_path / "right:1.tar").read_bytes()
    assert "upper-case" in client.error("retry", *spool, "--as", "Still/Wrong", "More.tar", code=2)
    assert "is waiting" in client.error("retry", *spool, "--as", "right:1", "More.tar", code=1)
    assert "ignores" in client.error("retry", *spool, "--as", ".hidden.tar", "More.tar", code=2)
    assert ["More.tar", "More.tar.error.json"] == sorted(os.listdir(tmp_path / ".failed"))


def test_a_failed_file_can_be_given_up(client: Client, tmp_path: Path) -> None:
    _fail(tmp_path, "App.tar")
    _fail(tmp_path, "Other.tar")
    spool = ("-d", str(tmp_path))
    assert "refusing to remove files without asking; add --yes" in client.error("discard", *spool, "App.tar", code=2)
    assert ["App.tar"] == client.lines("discard", *spool, "--yes", "App.tar")
    assert ["Other.tar", "Other.tar.error.json"] == sorted(os.listdir(tmp_path / ".failed"))
    assert "no file 'App.tar' has failed" in client.error("discard", *spool, "--yes", "App.tar", code=3)
    assert "no file '../App.tar' has failed" in client.error("discard", *spool, "--yes", "../App.tar", code=3)


def test_nothing_is_given_up_by_a_person_who_says_no(client: Client, tmp_path: Path) -> None:
    _fail(tmp_path, "App.tar")
    for answer, code, left in ((b"n\n", 1, 2), (b"y\n", 0, 0)):
        ours, theirs = pty.openpty()
        process = client.start("discard", "-d", str(tmp_path), "App.tar", stdin=theirs)
        os.write(ours, answer)
        _, question = process.communicate(timeout=60)
        assert (code, left) == (process.returncode, len(os.listdir(tmp_path / ".failed")))
        assert b"Remove 1 failed file for good?" in question
        os.close(ours)
        os.close(theirs)


def test_no_name_reaches_a_terminal_with_control_characters(client: Client, tmp_path: Path) -> None:
    _fail(tmp_path, "red\x1b[31m")
    assert rb"red\x1b[31m: " in client.run("failed", "-d", str(tmp_path)).stdout


def test_a_file_that_is_called_like_a_record_is_not_taken_for_one(client: Client, tmp_path: Path) -> None:
    _fail(tmp_path, "App")
    (tmp_path / ".failed" / error_name("App")).write_bytes(b"somebody's bytes")
    client.run("retry", "-d", str(tmp_path), "App")
    assert b"somebody's bytes" == (tmp_path / ".failed" / "App.error.json").read_bytes()
