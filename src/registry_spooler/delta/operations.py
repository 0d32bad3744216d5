"""What a recipe has its reader do, in the order of the layer: literal bytes, and what is copied from the base.

A base is read in its order, so what is copied *in order* comes as it passes by. What does not, because files have moved
or are there twice, is *aside*: the reader reads the base once more, before, and keeps these entries in a file. The
writer lets as many bytes as possible be in order.

The encoding of each: its kind as a byte, with 8 added for what is aside. A literal: how many bytes. All others: the
entry's number in the base, relative to the one behind the last that was copied. Entries come as runs: how many there
are, and each one's times, the first relative to the last one told, shifted by a bit that says that there is a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from registry_spooler.delta import varint
from registry_spooler.delta.signature import ENTRIES_MAX, LAYER_MAX_BYTES
from registry_spooler.delta.varint import VarintReader

OPERATIONS_MAX_BYTES: Final = 4 << 20
"""Of all operations. For 250,000 entries under times of their own it is some 2 MB."""

_LITERAL, _ENTRIES, _PADDED, _BARE, _ASIDE = 0, 1, 2, 3, 8
_WHAT: Final = "the recipe"


@dataclass(frozen=True, slots=True)
class Literal:
    """The next `size` literal bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Copy:
    """One entry of the base, by its number: the whole under other `times`, or its content alone."""

    index: int
    times: tuple[int, ...] = ()
    """Of the whole entry; none for its content alone."""
    is_padded: bool = True
    """Is a content alone followed by the zeros that fill its last block?"""
    is_aside: bool = False


Operation = Literal | Copy


def encode(operations: Iterable[Operation]) -> bytes:
    """Write operations down."""
    writer = _Writer()
    for operation in operations:
        writer.add(operation)
    return writer.finish()


class _Writer:
    def __init__(self) -> None:
        self._out = bytearray()
        self._run: list[Copy] = []
        self._expected = 0
        self._time = 0
        self._literal_bytes = 0

    def add(self, operation: Operation) -> None:
        if isinstance(operation, Literal):
            self._end_run()
            self._literal_bytes += operation.size
            return
        self._end_literal()
        if self._run and not self._continues(operation):
            self._end_run()
        self._run.append(operation)
        if not operation.times:
            self._end_run()

    def finish(self) -> bytes:
        self._end_literal()
        self._end_run()
        return bytes(self._out)

    def _continues(self, copy: Copy) -> bool:
        last = self._run[-1]
        return bool(copy.times) and copy.index == last.index + 1 and copy.is_aside == last.is_aside

    def _end_literal(self) -> None:
        if self._literal_bytes:
            self._out.append(_LITERAL)
            varint.append(self._out, self._literal_bytes)
            self._literal_bytes = 0

    def _end_run(self) -> None:
        if not self._run:
            return
        run, self._run = self._run, []
        first, out = run[0], self._out
        kind = _ENTRIES if first.times else _PADDED if first.is_padded else _BARE
        out.append(kind | _ASIDE if first.is_aside else kind)
        varint.append_signed(out, first.index - self._expected)
        self._expected = run[-1].index + 1
        if not first.times:
            return
        varint.append(out, len(run))
        for copy in run:
            self._append_times(copy.times)

    def _append_times(self, times: tuple[int, ...]) -> None:
        has_second = len(times) == 2
        varint.append_signed(self._out, (times[0] - self._time) * 2 + has_second)
        self._time = times[0]
        if has_second:
            varint.append_signed(self._out, times[1] - self._time)


def decode(content: bytes) -> Iterator[Operation]:
    """Read what another wrote, one by one; DeltaError when it does not add up."""
    reader = VarintReader(content, _WHAT)
    expected = time = passed = 0
    while reader.left:
        kind = reader.take(1)[0]
        if kind == _LITERAL:
            yield Literal(reader.number(LAYER_MAX_BYTES, "literal bytes"))
            continue
        is_aside, kind = bool(kind & _ASIDE), kind & ~_ASIDE
        if kind not in (_ENTRIES, _PADDED, _BARE):
            raise reader.error("an operation is unknown")
        index = expected + reader.signed()
        count = reader.number(reader.left, "entries") if kind == _ENTRIES else 1
        expected = index + count
        if index < (0 if is_aside else passed) or expected > ENTRIES_MAX or not count:
            raise reader.error("it copies an entry that is missing or already past")
        passed = passed if is_aside else expected
        for number in range(index, expected):
            if kind != _ENTRIES:
                yield Copy(number, (), kind == _PADDED, is_aside)
                continue
            change = reader.signed()
            time += change >> 1
            times = (time, time + reader.signed()) if change & 1 else (time,)
            if min(times) < 0:
                raise reader.error("a time in it is negative")
            yield Copy(number, times, is_aside=is_aside)


@dataclass(slots=True)
class _Run:
    """Copies of entries that follow each other in the base, at `start` to `stop` of the list."""

    first: int
    last: int
    bytes: int
    start: int
    stop: int
    before: int | None = None
    """The run that comes before it in the best choice."""


def choose_in_order(copies: Sequence[tuple[int, int]]) -> list[bool]:
    """Tell which copies can be in order, given each one's entry and bytes, so that as few bytes as may be are aside.

    The heaviest increasing subsequence of runs, found with a Fenwick tree of maxima over the base's entries.
    """
    runs = _runs(copies)
    tree: list[tuple[int, int | None]] = [(0, None)] * (max((run.last for run in runs), default=0) + 2)
    best: tuple[int, int | None] = (0, None)
    for number, run in enumerate(runs):
        at = run.first
        below: tuple[int, int | None] = (0, None)
        while at:
            below = max(below, tree[at], key=_weight)
            at &= at - 1
        run.before = below[1]
        total = (below[0] + run.bytes, number)
        best = max(best, total, key=_weight)
        at = run.last + 1
        while at < len(tree):
            tree[at] = max(tree[at], total, key=_weight)
            at += at & -at
    chosen, number_or_none = [False] * len(copies), best[1]
    while number_or_none is not None:
        run = runs[number_or_none]
        chosen[run.start : run.stop] = [True] * (run.stop - run.start)
        number_or_none = run.before
    return chosen


def _weight(choice: tuple[int, int | None]) -> int:
    return choice[0]


def _runs(copies: Sequence[tuple[int, int]]) -> list[_Run]:
    runs: list[_Run] = []
    for at, (index, size) in enumerate(copies):
        if runs and index == runs[-1].last + 1:
            run = runs[-1]
            run.last, run.stop, run.bytes = index, at + 1, run.bytes + size
        else:
            runs.append(_Run(index, index, size, at, at + 1))
    return runs
