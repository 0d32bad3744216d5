from __future__ import annotations

import os

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.errors import ArchiveError, ArchiveTruncated, InvalidFileName, SourceUnreadable
from registry_spooler.spool.filename import FileName
from registry_spooler.text import (
    count_text,
    duration_text,
    encodable,
    printable,
    quoted,
    shortened,
    size_text,
    terminal_safe_json,
)

any_text = st.text(st.characters(exclude_categories=()))
"""Lone surrogates, control and format characters included."""


@given(any_text)
def test_whatever_it_is_it_is_shown_on_one_line_without_anything_that_moves_a_cursor(text: str) -> None:
    assert printable(text).isprintable()
    assert quoted(text).isprintable()
    encodable(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"Catalog\App:v1.tar", r"Catalog\App:v1.tar"),
        ("größe 日本 'x'", "größe 日本 'x'"),
        (os.fsdecode(b"\xff"), r"\xff"),
        ("\ud800", r"\ud800"),
        ("a\nb\x1b[0m\x9b", r"a\nb\x1b[0m\x9b"),
        ("\u202egnp.exe\u200b\u2028", r"\u202egnp.exe\u200b\u2028"),
    ],
)
def test_how_text_is_shown(text: str, shown: str) -> None:
    assert shown == printable(text)


def test_quoted_text_is_cut_where_it_is_long() -> None:
    assert r"'Catalog\App:v1.tar'" == quoted(r"Catalog\App:v1.tar")
    assert f"'{'x' * 140}…'" == quoted("x" * 200, 140)


def test_a_sentence_does_not_begin_with_a_digest() -> None:
    digest = "0123456789abcdef" * 4
    assert "blobs/sha256/0123456789ab…: no" == str(ArchiveError("no", where=f"blobs/sha256/{digest}"))
    assert "it ends (0123456789ab….tar)" == str(ArchiveTruncated("it ends", where=f"{digest}.tar"))
    assert f"{digest}0" == shortened(f"{digest}0")


def test_errors_show_a_file_name_as_it_is() -> None:
    with pytest.raises(InvalidFileName) as caught:
        FileName.parse(r"Catalog\App:v1.tar")
    assert r"the file name 'Catalog\App:v1.tar' does not name an image: " in str(caught.value)
    assert r"'a\b.tar' cannot be read: it is gone" == str(SourceUnreadable(r"a\b.tar", "it is gone"))


@given(any_text)
def test_json_for_a_terminal_differs_in_its_spelling_and_not_in_its_meaning(text: str) -> None:
    text = encodable(text)
    safe = terminal_safe_json(orjson.dumps([text]))
    assert safe.decode().isprintable()
    assert [text] == orjson.loads(safe)


def test_json_for_a_terminal_keeps_what_is_harmless() -> None:
    assert orjson.dumps("über 日本") == terminal_safe_json(orjson.dumps("über 日本"))
    assert rb'"\u202e\u009b\udb40\udc01\u007f"' == terminal_safe_json(orjson.dumps("\u202e\x9b\U000e0001\x7f"))


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (12_900_000, "12.3 MiB"), (5 << 50, "5.0 PiB")],
)
def test_sizes(size_bytes: int, shown: str) -> None:
    assert shown == size_text(size_bytes)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (9.96, "10 s"),
        (0.42, "0.4 s"),
        (59.6, "1 min 0 s"),
        (250, "4 min 10 s"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert shown == duration_text(seconds)


def test_counts() -> None:
    assert ["0 blobs", "1 blob", "1,200 blobs"] == [count_text(count, "blob") for count in (0, 1, 1200)]
    assert "2 repositories" == count_text(2, "repository", "repositories")
