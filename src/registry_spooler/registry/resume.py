"""How an upload goes on after each answer: decided from numbers alone.

An answer to a PATCH of the bytes `start` to `end` (exclusive), or to the question what is stored, becomes a
`Verdict`. A range is never sent twice blindly: servers that stream append it again. Our own offset is
trusted after a success; `Range` only shows that less was taken.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from registry_spooler.registry.retry import RETRIED_STATUSES

ACCEPTED: Final = frozenset({200, 201, 202, 204})
"""202 by the book; 201 is ECR's."""
_NO_CHUNKS: Final = frozenset({400, 405, 411, 416, 501})
_RANGE: Final = re.compile(r"(?:bytes=)?([0-9]{1,18})-(-?[0-9]{1,18})")


class Next(enum.Enum):
    """What to do next."""

    GO_ON = "the chunk is stored"
    ASK = "ask the registry how much it has"
    LOG_IN = "send the same bytes to the same place, with a new login"
    SMALLER = "ask how much is stored, then go on in smaller chunks"
    STREAM = "begin again, without ranges"
    RESTART = "begin the blob again"
    FAIL = "the registry refuses"


@dataclass(frozen=True, slots=True)
class StoredRange:
    """What `Range` says: the bytes `0` to `last`, and whether it was written in Quay's way."""

    last: int
    has_unit: bool

    @classmethod
    def read(cls, text: str | None) -> StoredRange | None:
        """None when there is no such header, or one that cannot be understood."""
        match = _RANGE.fullmatch((text or "").strip())
        return cls(int(match[2]), text is not None and text.strip().startswith("bytes=")) if match else None


def after_chunk(status: int, text: str | None, start: int, end: int, *, ranged: bool, trusts_range: bool) -> Next:
    """What the answer to a PATCH of the bytes `start` to `end` means."""
    if status in ACCEPTED:
        stored = StoredRange.read(text)
        if not ranged or not trusts_range or stored is None or stored.last + 1 >= end:
            return Next.GO_ON
        return Next.ASK
    if status == 401:
        return Next.LOG_IN
    if not ranged:
        return Next.RESTART if status == 404 or status in RETRIED_STATUSES else Next.FAIL
    if status == 413:
        return Next.SMALLER
    if start == 0 and status in _NO_CHUNKS:
        return Next.STREAM
    if status == 416 or status in RETRIED_STATUSES:
        return Next.ASK
    return Next.RESTART if status in {400, 404} else Next.FAIL


def stored_bytes(text: str | None, start: int, end: int) -> int | None:
    """From which byte to go on, by the answer to "how much is stored?"; None: the session cannot be used.

    `0-0` stands for nothing and for one byte; Quay writes `bytes=0-<count>`.
    """
    stored = StoredRange.read(text)
    if stored is None:
        return None
    count = stored.last if stored.has_unit else stored.last + 1
    if count <= 1 and start == 0:
        count = 0
    return count if start <= count <= end else None
