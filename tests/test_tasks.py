"""Which of several errors counts, when the tasks of one job raise several."""

from __future__ import annotations

import itertools

import anyio
import pytest

from registry_spooler.aio import foremost, task_group
from registry_spooler.errors import ArchiveError, RegistryAnswer, RegistryProtocolError, RegistryUnreachable

IN_ORDER: tuple[BaseException, ...] = (
    KeyboardInterrupt(),
    ArchiveError("it is cut off"),
    RegistryAnswer("PUT", "http://localhost:5000/v2/app", 413),
    RuntimeError("a mistake"),
    RegistryUnreachable("http://localhost:5000", "nothing listens there"),
)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(IN_ORDER, 2)))
def test_the_order_of_errors_whoever_was_first(first: BaseException, second: BaseException) -> None:
    for pair in ((first, second), (second, first)):
        assert first is foremost(BaseExceptionGroup("tasks", pair))
        assert first is foremost(BaseExceptionGroup("outer", [BaseExceptionGroup("inner", pair), second]))


@pytest.mark.parametrize(
    ("first", "second"),
    list(
        itertools.permutations(
            [OSError(5, "Input/output error"), RegistryProtocolError("http://localhost:5000", "a web page")]
        )
    ),
)
def test_of_those_that_pass_the_first_one_counts(first: Exception, second: Exception) -> None:
    assert first is foremost(ExceptionGroup("tasks", [first, second]))


def test_a_single_error_is_itself() -> None:
    error = RuntimeError("a mistake")
    assert error is foremost(error)


async def test_a_task_group_raises_the_error_that_counts_with_its_cause() -> None:
    cause = ValueError("why")

    async def fail(error: Exception, because: Exception | None = None) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        raise error from because

    with pytest.raises(ArchiveError, match="cut off") as caught:
        async with task_group() as tasks:
            tasks.start_soon(fail, RegistryUnreachable("http://localhost:5000", "nothing listens there"))
            tasks.start_soon(fail, ArchiveError("it is cut off"), cause)
    assert caught.value.__cause__ is cause
