"""Several requests at once, their answers in the order of the questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from registry_spooler.tasks import task_group

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 8
"""Enough to hide the way to a registry far off; a small one is not overrun."""


async def in_order(ask: Callable[[T], Awaitable[R]], questions: Sequence[T]) -> AsyncIterator[R]:
    """Answer by answer; the first error ends it."""
    for start in range(0, len(questions), AT_ONCE):
        batch = questions[start : start + AT_ONCE]
        answers: dict[int, R] = {}

        async def answer(index: int, question: T, answers: dict[int, R] = answers) -> None:
            answers[index] = await ask(question)

        async with task_group() as group:
            for index, question in enumerate(batch):
                group.start_soon(answer, index, question)
        for index in range(len(batch)):
            yield answers[index]
