"""Signatures that are made before anybody asks: what goes wrong with one layer is no trouble of the daemon's."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from registry_spooler.daemon import next_bases
from registry_spooler.daemon.line import Line
from registry_spooler.delta.base import LayerStep
from registry_spooler.errors import DeltaError
from registry_spooler.oci.reference import Reference


@pytest.mark.parametrize("error", [DeltaError("the base is too large"), OSError(), RuntimeError()])
async def test_the_next_layer_is_signed_whatever_became_of_one(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked: list[str] = []
    done = anyio.Event()

    async def find_base(_: Any, reference: Reference, *__: Any) -> None:
        asked.append(reference.repository)
        if reference.repository == "bad":
            raise error
        done.set()

    monkeypatch.setattr(next_bases, "find_base", find_base)
    client: Any = None
    bases = next_bases.NextBases(client, client, Line(1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bases.run)
        for repository in ("bad", "good"):
            bases.add(Reference(repository, "1"), LayerStep(position=0))
        with anyio.fail_after(5):
            await done.wait()
        tasks.cancel_scope.cancel()
    assert asked == ["bad", "good"]
