"""Deltas, as either end may be told them: a layer's signature, and the recipe for a layer."""

from __future__ import annotations

import io

import zstandard

from delta.layers import File, in_pieces, recipe_of, tar, written
from fuzz.target import FuzzTarget
from registry_spooler.delta.operations import OPERATIONS_MAX_BYTES, decode
from registry_spooler.delta.rebuild import rebuild
from registry_spooler.delta.recipe import MAGIC, SIZES
from registry_spooler.delta.signature import Signature, signature_of
from registry_spooler.errors import DeltaError

BASE = tar([File(f"lib/{number}", bytes([number]) * 700, 5) for number in range(6)])
LAYER_MAX_BYTES = 1 << 20


def check_signature(data: bytes) -> None:
    """A signature that is read is written the same way, and a layer has a recipe by it."""
    try:
        signature = Signature.decode(data)
    except DeltaError as error:
        assert str(error).isprintable()
        return
    assert Signature.decode(signature.encode()) == signature
    assert all(len(entry.content_hash) == (16 if entry.size else 0) for entry in signature.entries)


def check_recipe(data: bytes) -> None:
    """A recipe makes as many bytes as it declares, or is refused; so is one whose operations are these bytes."""
    compressed = zstandard.compress(data)
    size = int.from_bytes(data[:2], "big")
    written_by_us = MAGIC + SIZES.pack(size, len(data), len(compressed)) + compressed + zstandard.compress(bytes(3000))
    for recipe in (data, written_by_us):
        try:
            pieces = rebuild(
                io.BytesIO(recipe), lambda: in_pieces(BASE, 999), io.BytesIO(), layer_max_bytes=LAYER_MAX_BYTES
            )
            made = sum(memoryview(piece).nbytes for piece in pieces)
        except DeltaError as error:
            assert str(error).isprintable()
        else:
            assert made == SIZES.unpack(recipe[len(MAGIC) : len(MAGIC) + SIZES.size])[0] <= LAYER_MAX_BYTES
    _check_operations(data)


def _check_operations(data: bytes) -> None:
    assert len(data) <= OPERATIONS_MAX_BYTES
    try:
        assert sum(1 for _ in decode(data)) <= len(data)
    except DeltaError as error:
        assert str(error).isprintable()


def _recipe_seeds() -> list[bytes]:
    files = [File(f"lib/{number}", bytes([number]) * 700, 6) for number in range(6)]
    layers = [tar(files), tar(files[::-1]), tar([*files[:3], File("new", b"new" * 300), *files[3:]])]
    recipes = [recipe for layer in layers if (recipe := recipe_of(BASE, layer)) is not None]
    return [written(recipe) for recipe in recipes] + [b"\x08\x00\x00\x05\x02\x04\x01\x02\x01\x0a"]


TARGETS = {
    "signature": FuzzTarget(check=check_signature, seeds=lambda: [signature_of([BASE]).encode()]),
    "recipe": FuzzTarget(check=check_recipe, seeds=_recipe_seeds),
}
