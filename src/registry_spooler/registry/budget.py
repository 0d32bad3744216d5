"""How much memory the unacknowledged bytes of all uploads may take.

A chunk of a stream that cannot be read again is retained until the registry has acknowledged it. Every
upload may retain `floor_bytes` without asking; more comes from a pool that all uploads share, and
nobody ever waits for it: when it is empty, a chunk closes early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FLOOR_BYTES: Final = 6 << 20
"""What the pickiest registry asks of every chunk but the last, 5 MiB, and one piece: a chunk can always be closed."""
POOL_BYTES: Final = 11 << 20
"""With four uploads at once: 4 x 6 + 11 = 35 MiB at most; a single one has chunks of 16 MiB."""


@dataclass(slots=True)
class ChunkBudget:
    """The shared pool. Sizes are in bytes; used by one event loop, never from threads."""

    floor_bytes: int = FLOOR_BYTES
    pool_bytes: int = POOL_BYTES
    taken_bytes: int = 0
    """What uploads have taken from the pool and not yet given back."""

    def share(self) -> BudgetShare:
        """What one upload may retain."""
        return BudgetShare(self, self.floor_bytes)


@dataclass(slots=True)
class BudgetShare:
    """One upload's part: the floor, and what it has taken from the pool."""

    budget: ChunkBudget
    floor_bytes: int
    """May be raised for a registry that wants longer chunks."""
    _from_pool: int = 0

    def stretch(self, wanted: int) -> int:
        """Take what the pool can spare towards `wanted` bytes in all; returns how many may now be retained."""
        missing = wanted - self.floor_bytes - self._from_pool
        taken = max(0, min(missing, self.budget.pool_bytes - self.budget.taken_bytes))
        self._from_pool += taken
        self.budget.taken_bytes += taken
        return self.floor_bytes + self._from_pool

    def settle(self, needed: int) -> None:
        """Give back what is not needed to retain this many bytes; 0 at the end."""
        surplus = self._from_pool - max(0, needed - self.floor_bytes)
        if surplus > 0:
            self._from_pool -= surplus
            self.budget.taken_bytes -= surplus
