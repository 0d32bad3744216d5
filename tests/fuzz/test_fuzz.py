"""Every target on its first inputs, on what chance makes of them, and on what the fuzzer once found."""

from __future__ import annotations

import random

import pytest

from fuzz.__main__ import NAMES
from fuzz.mutation import mutate_json
from fuzz.target import FuzzTarget
from fuzz.targets import TARGETS

CHANGED_INPUTS = 300
"""Of each target; the fuzzer proper tries some millions."""

FOUND = [
    ("location", b"//[::&]:5\x0000/a"),
    ("manifest", b'{"config":{"digest":"sha256:%064d","size":"\\u0000"},"layers":[]}' % 0),
]
"""What was no answer of ours once: a target, and its input."""


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_is_answered(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


@pytest.mark.parametrize("name", TARGETS)
def test_first_inputs_are_read(name: str) -> None:
    seeds = TARGETS[name].seeds()
    assert seeds
    for seed in seeds:
        assert len(seed) <= TARGETS[name].max_bytes
        TARGETS[name].check(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_are_answered(name: str) -> None:
    chance, seeds = random.Random(name), TARGETS[name].seeds()
    for _ in range(CHANGED_INPUTS):
        data = changed(TARGETS[name], chance.choice(seeds), chance)
        try:
            TARGETS[name].check(data)
        except Exception as exc:
            exc.add_note(f"the input was {data!r}")
            raise


def changed(target: FuzzTarget, seed: bytes, chance: random.Random) -> bytes:
    """One of the first inputs with some changes."""
    data = bytearray(seed)
    if target.is_json and chance.random() < 0.8:
        return mutate_json(bytes(data), target.max_bytes, chance.randrange(1 << 32)) or b""
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(3):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randrange(1, 20)]
            case _:
                data[at:at] = data[chance.randrange(len(data) + 1) :][: chance.randrange(1, 20)]
    return bytes(data[: target.max_bytes])


def test_changed_documents_differ() -> None:
    document = b'{"config":{"size":1},"layers":[1,2,3]}'
    made = {mutate_json(document, 4096, seed) for seed in range(100)}
    assert len(made) > 50
    assert mutate_json(b"no JSON", 4096, 1) is None


def test_the_command_knows_all_targets() -> None:
    assert set(NAMES) == set(TARGETS)
