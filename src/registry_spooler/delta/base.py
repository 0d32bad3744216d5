"""Which layer another one is most likely made from: that of the same step of an image's last build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson

from registry_spooler.errors import DeltaError

STEP_MAX_BYTES: Final = 64 << 10
_CREATED_BY_MAX: Final = 16 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStep:
    """A layer's place in its image. `created_by` is empty where the history does not tell; `platform` is os/arch."""

    position: int
    created_by: str = ""
    platform: str = ""

    def encode(self) -> bytes:
        """Return it as JSON."""
        document = {
            "position": self.position,
            "created_by": self.created_by[:_CREATED_BY_MAX],
            "platform": self.platform,
        }
        return orjson.dumps(document)

    @classmethod
    def decode(cls, content: bytes) -> LayerStep:
        """Read what `encode` wrote; DeltaError when it is something else."""
        try:
            document: dict[str, Any] = orjson.loads(content)
            step = cls(
                position=int(document["position"]),
                created_by=str(document["created_by"]),
                platform=str(document["platform"]),
            )
        except (ValueError, TypeError, KeyError) as exc:
            raise DeltaError("the request does not say which layer needs a base") from exc
        if step.position < 0:
            raise DeltaError("a layer has no negative position")
        return step


def layer_at(step: LayerStep, layers: Sequence[T], steps: Sequence[str]) -> T | None:
    """Return an image's layer of the same `created_by`, else at the same position, or None.

    `steps` are the layers' own. Of several that fit, the nearest to the position is taken.
    """
    created_by = step.created_by[:_CREATED_BY_MAX]
    if created_by and len(steps) == len(layers):
        fitting = [at for at, own in enumerate(steps) if own[:_CREATED_BY_MAX] == created_by]
        if fitting:
            return layers[min(fitting, key=lambda at: abs(at - step.position))]
    return layers[step.position] if step.position < len(layers) else None
