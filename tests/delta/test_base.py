"""Which layer of an image a rebuilt one is compared with."""

from __future__ import annotations

import pytest

from registry_spooler.delta.base import LayerStep, layer_at
from registry_spooler.errors import DeltaError

STEPS = ("COPY base", "RUN build", "COPY app", "RUN build")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (LayerStep(position=0, created_by="COPY app"), 2),
        (LayerStep(position=0, created_by="RUN build"), 1),
        (LayerStep(position=3, created_by="RUN build"), 3),
        (LayerStep(position=2, created_by="RUN other"), 2),
        (LayerStep(position=4, created_by="RUN other"), None),
        (LayerStep(position=1), 1),
    ],
)
def test_the_layer_of_the_same_step(step: LayerStep, expected: int | None) -> None:
    assert layer_at(step, range(4), STEPS) == expected
    assert LayerStep.decode(step.encode()) == step


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"position": -1, "created_by": "", "platform": ""}'])
def test_what_says_no_step_is_refused(content: bytes) -> None:
    with pytest.raises(DeltaError):
        LayerStep.decode(content)
