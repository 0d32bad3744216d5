"""How much memory the unacknowledged bytes of all uploads may take.

A chunk of a stream that cannot be read again is retained until the registry has acknowledged it. All uploads
share one total; every upload may always retain `floor_bytes`, even when the others have it all, and nobody ever
waits for memory: when there is no more, a chunk closes early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FLOOR_BYTES: Final = 6 << 20
"""What the pickiest registry asks of every chunk but the last, 5 MiB, and one piece: a chunk can always be closed."""
TOTAL_BYTES: Final = 32 << 20
"""Two chunks of the default size for an upload that is alone, little more than the floors for five."""


@dataclass(slots=True)
class ChunkBudget:
    """What all uploads share. Sizes are in bytes; used by one event loop, never from threads."""

    floor_bytes: int = FLOOR_BYTES
    total_bytes: int = TOTAL_BYTES
    taken_bytes: int = 0
    """What uploads have taken and not yet given back; more than the total only by floors."""

    def share(self) -> BudgetShare:
        """What one upload may retain; nothing is taken yet."""
        return BudgetShare(self, self.floor_bytes)


@dataclass(slots=True)
class BudgetShare:
    """One upload's part. `floor_bytes` may be raised to what its registry needs."""

    budget: ChunkBudget
    floor_bytes: int
    taken_bytes: int = 0

    def stretch(self, wanted: int) -> int:
        """Take what there is towards `wanted` bytes in all; returns how many may now be retained."""
        free = max(0, self.budget.total_bytes - self.budget.taken_bytes)
        granted = min(wanted, max(self.floor_bytes, self.taken_bytes + free))
        if granted > self.taken_bytes:
            self.budget.taken_bytes += granted - self.taken_bytes
            self.taken_bytes = granted
        return max(self.taken_bytes, self.floor_bytes)

    def settle(self, needed: int) -> None:
        """Give back what is not needed to retain this many bytes; 0 at the end."""
        surplus = self.taken_bytes - needed
        if surplus > 0:
            self.taken_bytes = needed
            self.budget.taken_bytes -= surplus
