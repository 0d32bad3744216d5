"""Second attempts: what is tried again, for how long, and what is told of it."""

from __future__ import annotations

import anyio
import pytest

from registry_spooler.kubernetes.cluster_errors import ExecCut, KubeError, KubeForbidden, RemoteError
from registry_spooler.kubernetes.redial import Redial


class Failing:
    """Work that fails with these errors, one after the other, and then succeeds."""

    def __init__(self, *errors: KubeError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


def cut(times: int, reason: str = "cut") -> list[KubeError]:
    return [ExecCut("pod", reason) for _ in range(times)]


async def test_time_is_what_counts() -> None:
    assert 31 == await Redial(first_pause_seconds=0).run(Failing(*cut(30)))


async def test_when_the_time_is_up() -> None:
    work, told = Failing(*cut(9)), list[KubeError]()
    with pytest.raises(ExecCut):
        await Redial(patience_seconds=0, attempts_min=3, first_pause_seconds=0, on_retry=told.append).run(work)
    assert (3, 1) == (work.calls, len(told))


async def test_attempts_that_got_somewhere_do_not_count() -> None:
    work = Failing(*cut(19))
    redial = Redial(patience_seconds=0, attempts_min=2, first_pause_seconds=0)
    assert 20 == await redial.run(work, progress=lambda: work.calls)


@pytest.mark.parametrize(
    "error", [RemoteError("it failed", exit_code=1, temporary=True), KubeForbidden(403, "list pods", "default")]
)
async def test_what_is_final_is_not_tried_again(error: KubeError) -> None:
    work = Failing(error)
    with pytest.raises(type(error)):
        await Redial(first_pause_seconds=0).run(work)
    assert 1 == work.calls


async def test_a_registry_that_comes_back_with_its_pod_is_waited_for() -> None:
    refused = [RemoteError("connection refused", exit_code=1, temporary=True) for _ in range(3)]
    assert 5 == await Redial(first_pause_seconds=0).run(Failing(*cut(1), *refused))


async def test_what_ails_all_streams_is_told_once() -> None:
    told: list[str] = []
    # Without pauses they take turns: by chance one would be well again before another has been refused.
    redial = Redial(first_pause_seconds=0, on_retry=lambda error: told.append(error.reason))
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(redial.run, Failing(*cut(2), *cut(1, "refused")))
    assert ["cut", "refused"] == told
    await redial.run(Failing(*cut(1)))
    assert ["cut", "refused", "cut"] == told  # it was well in between
