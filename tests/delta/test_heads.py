"""Heads under other times, and what of the order of a base is kept."""

from __future__ import annotations

import tarfile
from itertools import permutations

import pytest

from delta.layers import File, compiled, rebuilt, recipe_of, tar, written
from registry_spooler.delta.operations import choose_in_order
from registry_spooler.delta.splitter import Head, split


def _heads(content: bytes) -> list[Head]:
    return [part for part in split([content]) if isinstance(part, Head)]


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_head_under_other_times_is_the_other_head(style: int) -> None:
    files = [File("n" * 120, b"x" * 700), File("small", b"y" * 40), File("a.pyc", compiled(7, b"z" * 900))]
    new = [*(file.at(1_700_000_000) for file in files[:2]), File("a.pyc", compiled(9, b"z" * 900), 8)]
    for head, other in zip(_heads(tar(files, style)), _heads(tar(new, style)), strict=True):
        times = other.times()
        assert times is not None
        assert head.normal_form() == other.normal_form()
        assert head.content != other.content
        assert head.at_times(times) == other.content


def test_compiled_python_has_two_times() -> None:
    (head,) = _heads(tar([File("a.pyc", compiled(7, b"z" * 900), 3)]))
    assert head.times() == (3, 7)
    assert head.size == 900


def test_compiled_python_is_copied_under_new_times() -> None:
    code = [bytes([number]) * 3000 for number in range(40)]
    base = tar([File(f"{number}.pyc", compiled(100, text), 100) for number, text in enumerate(code)])
    layer = tar([File(f"{number}.pyc", compiled(200, text), 201) for number, text in enumerate(code)])
    recipe = recipe_of(base, layer)
    assert recipe is not None
    assert recipe.size < 200
    assert layer == rebuilt(written(recipe), base)


@pytest.mark.parametrize("times", [(), (1, 2), (8**11,)])
def test_times_that_do_not_fit_are_refused(times: tuple[int, ...]) -> None:
    (head,) = _heads(tar([File("a", b"x" * 700)]))
    with pytest.raises(ValueError, match="do not fit"):
        head.at_times(times)


def test_times_that_are_written_in_an_odd_way_are_not_told() -> None:
    (head,) = _heads(tar([File("a", b"x" * 700, 8**11 + 1)]))  # in base 256
    assert head.times() is None


def test_the_heaviest_order_is_kept() -> None:
    """Compared with trying all choices."""
    sizes = [5, 1, 9, 3, 2, 7]
    for order in permutations(range(6), 5):
        copies = [(index, sizes[index]) for index in order]
        chosen = choose_in_order(copies)
        kept = [copy for copy, is_chosen in zip(copies, chosen, strict=True) if is_chosen]
        assert kept == sorted(kept)
        assert sum(size for _, size in kept) == _heaviest(copies)


def _heaviest(copies: list[tuple[int, int]], last: int = -1) -> int:
    if not copies:
        return 0
    (index, size), *rest = copies
    without = _heaviest(rest, last)
    return max(without, size + _heaviest(rest, index)) if index > last else without


def test_what_is_there_twice_is_in_order_once() -> None:
    assert choose_in_order([(3, 1), (3, 1), (4, 1)]) == [False, True, True]
    assert choose_in_order([]) == []
