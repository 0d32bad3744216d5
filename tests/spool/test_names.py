from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.spool.filename import derived_name, display
from registry_spooler.text import encodable

raw_names = st.binary(min_size=1, max_size=255).map(os.fsdecode)
long_texts = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=60, max_size=255).filter(
    lambda text: len(text.encode()) <= 255
)


@given(raw_names)
def test_a_name_is_shown_without_anything_that_moves_a_cursor(name: str) -> None:
    assert display(name).isprintable()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"app.tar", "app.tar"),
        ("größe.tar".encode(), "größe.tar"),
        (b"\xff", "\\xff"),
        (b"a\nb\x1b[0m", "a\\nb\\x1b[0m"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
    ],
)
def test_how_names_are_shown(raw: bytes, shown: str) -> None:
    assert display(os.fsdecode(raw)) == shown


@given(raw_names)
def test_a_record_holds_any_name_as_text(name: str) -> None:
    assert encodable(name).encode()


@given(raw_names, st.sampled_from((".json", ".error.json", ".1", ".error.json.1000")))
def test_a_derived_name_always_fits(name: str, extension: str) -> None:
    derived = derived_name(name, extension)
    assert derived.endswith(extension)
    assert len(os.fsencode(derived)) <= 255
    if len(os.fsencode(name)) + len(extension) <= 255:
        assert derived == name + extension


@given(long_texts)
def test_a_derived_name_of_a_clean_name_is_clean(name: str) -> None:
    assert derived_name(name, ".error.json").encode()


def test_names_that_are_cut_stay_apart() -> None:
    names = ["x" * 254 + letter for letter in "abc"]
    assert len({derived_name(name, ".json") for name in names}) == 3
