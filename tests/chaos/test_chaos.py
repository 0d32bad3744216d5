"""A minute of `./dev chaos`: rounds with fixed seeds, and some by chance. A failure names its seed and its folder."""

from __future__ import annotations

import random

import pytest

from chaos.model import Model
from chaos.payloads import Payload
from chaos.rounds import play

FIXED = range(100, 112)
BY_CHANCE = 3
"""Rounds with seeds that nobody has seen before."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", FIXED)
def test_rounds_with_fixed_seeds(seed: int) -> None:
    assert "" == _trouble(seed)


@pytest.mark.timeout(1200)
def test_rounds_by_chance() -> None:
    first = random.SystemRandom().randrange(1 << 31)
    for seed in range(first, first + BY_CHANCE):
        assert "" == _trouble(seed)


def _trouble(seed: int) -> str:
    """Play a round; what went wrong in it, with its story and how to play it again."""
    result = play(seed)
    story = "\n".join([*result.story, *result.complaints])
    return f"./dev chaos --seed {seed} --rounds 1; kept in {result.folder}\n{story}" if result.complaints else ""


def image(name: str, shown: str) -> Payload:
    return Payload(name=name, content=shown.encode(), shows={("app", "1"): ((shown,),)})


def test_the_last_arrival_wins() -> None:
    model = Model()
    model.arrive(image("app:1.tar", "a"), renamed=True)
    model.arrive(image("app:1.tgz", "b"), renamed=True)
    assert {(("b",),)} == model.may_show(("app", "1"))


def test_what_was_taken_away_may_have_been_pushed() -> None:
    model = Model()
    model.arrive(image("app:1.tar", "a"), renamed=True)
    model.arrive(image("app:1.tgz", "b"), renamed=True)
    model.doubt("app:1.tgz")
    assert {(("a",),), (("b",),)} == model.may_show(("app", "1"))
    model.doubt("app:1.tar")
    assert {(("a",),), (("b",),), None} == model.may_show(("app", "1"))


def test_a_deletion_is_an_arrival() -> None:
    model = Model()
    model.arrive(image("app:1.tar", "a"), renamed=True)
    model.arrive(Payload(name="app:1!", content=b"", shows={("app", "1"): None}), renamed=False)
    assert {None} == model.may_show(("app", "1"))
