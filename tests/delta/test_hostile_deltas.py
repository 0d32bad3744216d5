"""Recipes and signatures that lie: a DeltaError, within bounds, and nothing else."""

from __future__ import annotations

import io
import itertools
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from delta.layers import BUSY, File, rebuilt, recipe_by, recipe_of, tar, written
from registry_spooler.delta import varint
from registry_spooler.delta.operations import Copy, Literal, Operation, decode, encode
from registry_spooler.delta.rebuild import rebuild
from registry_spooler.delta.recipe import MAGIC, SIZES
from registry_spooler.delta.signature import Signature, signature_of
from registry_spooler.errors import DeltaError

BASE = tar([File(f"{number}", bytes([number]) * 1000, 5) for number in range(10)])


def made(operations: bytes, layer_bytes: int, literals: bytes = b"", *, claimed: int | None = None) -> bytes:
    """A recipe of what another writer might say."""
    compressed = zstandard.compress(operations)
    sizes = SIZES.pack(layer_bytes, len(operations) if claimed is None else claimed, len(compressed))
    return MAGIC + sizes + compressed + zstandard.compress(literals)


def said(*operations: Operation) -> bytes:
    return encode(operations)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (b"", "another version"),
        (b"RSDR\x02" + bytes(16), "another version"),
        (made(said(Copy(10)), 1024), "no entry 10"),
        (made(said(Copy(3), Copy(3)), 2048), "is missing or already past"),
        (made(said(Copy(5), Copy(4)), 2048), "is missing or already past"),
        (made(said(Copy(300_000)), 1024), "is missing or already past"),
        (made(said(Copy(3)), 1023), "1,023 bytes"),
        (made(said(Copy(3)), 1025), "1,025 bytes"),
        (made(said(*itertools.repeat(Copy(3, is_aside=True), 50)), 2048), "2,048 bytes"),
        (made(said(Copy(3, (8**11,))), 1536), "do not fit"),
        (made(said(Copy(3, (1, 1))), 1536), "do not fit"),
        (made(said(Literal(5)), 5, b"1234"), "cut off"),
        (made(said(Literal(1 << 20)), 5, bytes(1 << 20)), "5 bytes"),
        (made(b"\x07", 5), "unknown"),
        (made(b"\x01\x00", 5), "cut off"),
        (made(b"\x00" + b"\xff" * 12, 5), "too long"),
        (made(said(Copy(3)), 1 << 50), "the recipe is too large"),
        (made(said(Copy(3)), 1024, claimed=1 << 30), "the recipe is too large"),
        (made(said(Copy(3)), 1024, claimed=100), "cut off"),
        (MAGIC + SIZES.pack(5, 5, 5) + b"abcde", "zstd|cut off"),
    ],
)
def test_a_lying_recipe_is_refused(recipe: bytes, reason: str) -> None:
    with pytest.raises(DeltaError, match=reason):
        rebuilt(recipe, BASE)


def test_a_larger_layer_than_is_taken_is_refused_before_it_is_made() -> None:
    recipe = made(said(Literal(5)), 5, b"12345")
    assert rebuilt(recipe, BASE, layer_max_bytes=5) == b"12345"
    with pytest.raises(DeltaError, match="layer of 5 bytes"):
        rebuilt(recipe, BASE, layer_max_bytes=4)


def test_more_out_of_order_than_is_taken_is_refused() -> None:
    recipe = made(said(*(Copy(number, is_aside=True) for number in range(9, -1, -1))), 10 * 1024)
    assert len(rebuilt(recipe, BASE)) == 10 * 1024
    with pytest.raises(DeltaError, match="out of order"):
        rebuilt(recipe, BASE, aside_max_bytes=10_000)


def test_a_bomb_costs_no_memory() -> None:
    """A gigabyte of literals, and the same entry for ever: what is declared is made, and a piece at a time."""
    zeros = zstandard.ZstdCompressor()
    literals = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(64))
    repeated = said(*itertools.repeat(Copy(3, is_aside=True), 20_000))
    for recipe in (made(said(Literal(1 << 30)), 1 << 30, b"") + literals, made(repeated, 20_000 * 1024)):
        tracemalloc.start()
        with pytest.raises(DeltaError):
            for number, piece in enumerate(rebuild(io.BytesIO(recipe), lambda: [BASE[:5000]], io.BytesIO())):
                assert len(memoryview(piece)) <= 1 << 20
                assert number < 1000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()


def test_a_base_that_is_another_is_refused_or_gives_another_layer() -> None:
    layer = tar([File(f"{number}", bytes([number]) * 1000, 6) for number in range(10)])
    recipe = recipe_of(BASE, layer)
    assert recipe is not None
    with pytest.raises(DeltaError, match="no entry"):
        rebuilt(written(recipe), BASE[: 6 * 1536])
    with pytest.raises(DeltaError, match="base is cut off"):
        rebuilt(written(recipe), BASE[:700])
    other = tar([File(f"{number}", bytes([number + 1]) * 1000, 5) for number in range(10)])
    assert rebuilt(written(recipe), other) != layer


@BUSY
@given(st.data())
def test_changed_recipes_give_a_layer_or_a_delta_error(data: st.DataObject) -> None:
    layer = tar([File(f"{number}", bytes([number % 7]) * 1000, 6) for number in range(12)])
    recipe = recipe_of(BASE, layer)
    assert recipe is not None
    content = bytearray(written(recipe))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        rebuilt(bytes(content), BASE, layer_max_bytes=1 << 20)
    except DeltaError as error:
        assert str(error).isprintable()


@BUSY
@given(st.binary(max_size=300))
def test_any_bytes_are_operations_or_a_delta_error(content: bytes) -> None:
    try:
        operations = list(decode(content))
    except DeltaError:
        return
    assert list(decode(encode(operations))) == operations or any(
        isinstance(operation, Literal) for operation in operations
    )


def _signature(layer_bytes: int, sizes: list[int], rest: bytes) -> bytes:
    out = bytearray(b"RSDS\x01")
    for number in (layer_bytes, len(sizes), *sizes):
        varint.append(out, number)
    return bytes(out) + rest


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"RSDS\x02\0\0", "another version"),
        (b"RSDS", "cut off"),
        (_signature(1000, [600, 500], bytes(44)), "more bytes than its layer"),
        (_signature(1000, [1001], bytes(22)), "bytes in a file"),
        (_signature(1000, [600], bytes(21)), "cut off"),
        (_signature(1000, [600], bytes(23)), "bytes after its end"),
        (_signature(1 << 50, [], b""), "bytes in a layer"),
        (b"RSDS\x01\x05" + b"\xff\xff\xff\x7f", "entries"),
        (bytes(9 << 20), "another version"),
    ],
)
def test_a_lying_signature_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(DeltaError, match=reason):
        Signature.decode(content)


@BUSY
@given(st.data())
def test_a_lying_signature_gives_a_recipe_all_the_same(data: st.DataObject) -> None:
    """Whatever the far end says of its base: what is made from the true one is the layer, another, or refused."""
    layer = tar([File(f"{number}", bytes([number]) * 1000, 6) for number in range(12)])
    content = bytearray(signature_of([BASE]).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(5, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        signature = Signature.decode(bytes(content))
        recipe = recipe_by(signature, layer)
        assert recipe is not None
        assert len(rebuilt(written(recipe), BASE)) == len(layer)
    except DeltaError as error:
        assert str(error).isprintable()


def test_numbers_are_read_as_they_were_written() -> None:
    chance, out = random.Random(1), bytearray()
    numbers = [chance.randrange(-(1 << chance.randrange(1, 60)), 1 << chance.randrange(1, 60)) for _ in range(200)]
    for number in (0, -1, 1, *numbers):
        varint.append_signed(out, number)
    reader = varint.VarintReader(bytes(out), "it")
    assert [reader.signed() for _ in range(203)] == [0, -1, 1, *numbers]
    assert not reader.left
