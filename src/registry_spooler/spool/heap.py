"""A heap that holds each of its items once, however often it is told of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item", bound=tuple[Any, ...])


class Heap(Generic[Item]):
    """Tuples, the smallest first."""

    def __init__(self) -> None:
        self._heap: list[Item] = []
        self._held: set[Item] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Item]:
        """All of them, in no order."""
        return iter(self._heap)

    @property
    def first(self) -> Item:
        """The smallest."""
        return self._heap[0]

    def push(self, item: Item) -> None:
        """Put it in, unless it is there already."""
        if item not in self._held:
            self._held.add(item)
            heapq.heappush(self._heap, item)

    def pop(self) -> Item:
        """Take the smallest out."""
        item = heapq.heappop(self._heap)
        self._held.remove(item)
        return item

    def clear(self) -> None:
        """Forget all of them."""
        self._heap.clear()
        self._held.clear()
