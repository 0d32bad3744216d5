"""Any two layers: the second is rebuilt from the first to the byte."""

from __future__ import annotations

import hashlib
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta.layers import BUSY, File, Pair, in_pieces, layer_pairs, rebuilt, recipe_of, tar, written
from registry_spooler.delta.signature import ENTRIES_MAX, Signature, signature_of
from registry_spooler.delta.splitter import End, Head, Raw, split

PIECES = st.sampled_from([7, 511, 512, 4096, 1 << 20])


@BUSY
@given(layer_pairs(), PIECES, PIECES)
def test_what_is_rebuilt_is_the_layer(pair: Pair, sent: int, read: int) -> None:
    recipe = recipe_of(pair.base, pair.layer, sent)
    assert recipe is not None
    assert pair.layer == rebuilt(written(recipe), pair.base, read)


@BUSY
@given(layer_pairs(), PIECES)
def test_a_tar_is_cut_into_all_its_bytes(pair: Pair, size: int) -> None:
    for content in (pair.base, pair.layer):
        out = bytearray()
        for part in split(in_pieces(content, size)):
            match part:
                case Head():
                    out += part.content
                case End():
                    out += part.padding
                case Raw():
                    out += part.content
                case _:
                    out += part
        assert content == out


@BUSY
@given(layer_pairs(), PIECES)
def test_a_signature_is_read_as_it_was_written(pair: Pair, size: int) -> None:
    signature = signature_of(in_pieces(pair.base, size))
    assert signature == Signature.decode(signature.encode())
    assert signature == signature_of([pair.base])


def test_a_sparse_file_is_copied_like_any(tmp_path: Path) -> None:
    """GNU's old sparse format: a map behind the header, in more blocks than one."""
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number * 65536)
            file.write(bytes([number + 1]) * 4096)
    layers = []
    for time in ("@1700000000", "@1700000009"):
        command = ["tar", "--sparse", "--format=gnu", f"--mtime={time}", "-cf-", "-C", tmp_path, "sparse"]
        layers.append(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(layers[0]) < 60 * 8192
    assert len(layers[0]) < 1 << 20
    recipe = recipe_of(*layers)
    assert recipe is not None
    assert recipe.size < 1000
    assert layers[1] == rebuilt(written(recipe), layers[0])


def _tree(time: int) -> list[File]:
    chance = random.Random(1)
    return [File(f"lib/{number:03}.py", chance.randbytes(2000 + number), time) for number in range(100)]


def _sent(old: list[File], new: list[File], style: int = tarfile.GNU_FORMAT) -> int:
    """The size of the recipe, which has been seen to be right."""
    base, layer = tar(old, style), tar(new, style)
    recipe = recipe_of(base, layer)
    assert recipe is not None
    assert hashlib.sha256(layer).digest() == hashlib.sha256(rebuilt(written(recipe), base)).digest()
    return recipe.size


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_new_times_cost_next_to_nothing(style: int) -> None:
    assert _sent(_tree(1_700_000_000), _tree(1_700_000_100), style) < 200


def test_a_changed_file_costs_itself() -> None:
    old, new = _tree(1), _tree(2)
    new[50] = File(new[50].name, random.Random(2).randbytes(2050), 2)
    assert 2050 < _sent(old, new) < 2500


def test_a_new_owner_costs_headers_alone() -> None:
    owned = [File(file.name, file.content, 2, {"uid": 1000}) for file in _tree(2)]
    assert _sent(_tree(1), owned) < 3000


def test_files_that_move_are_found() -> None:
    """One from the end to the front, a folder behind another, and one that is there twice."""
    old, new = _tree(1), _tree(2)
    moved = [new[99], *new[60:99], *new[:60], File("again", new[3].content, 2)]
    assert _sent(old, moved) < 500


def test_times_that_are_no_whole_seconds_cost_their_records() -> None:
    """PAX writes them beside the header, so that a head is literal, and its content is not."""
    new = [file.at(1_700_000_000.125 + number) for number, file in enumerate(_tree(0))]
    assert _sent(_tree(0), new, tarfile.PAX_FORMAT) < 5000


def test_what_follows_the_last_counted_member_is_literal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENTRIES_MAX >= 100_000
    monkeypatch.setattr("registry_spooler.delta.signature.ENTRIES_MAX", 90)
    assert 10 * 2000 < _sent(_tree(1), _tree(2)) < 11 * 2200
