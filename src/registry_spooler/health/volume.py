"""The room of the spool as it was at the last look: measured in a thread, since a network file system may be slow."""

from __future__ import annotations

from pathlib import Path

from registry_spooler.capacity import Capacity, measure
from registry_spooler.threads import in_thread


class Volume:
    """A directory's room as it was at the last look. Loop thread only."""

    def __init__(self, directory: Path, limit_bytes: int | None = None) -> None:
        self._directory, self._limit_bytes = directory, limit_bytes
        self.room = Capacity()
        self.error = ""
        """Why the last look failed; empty when it did not."""

    async def look(self) -> None:
        """Look once."""
        try:
            self.room = await in_thread(measure, self._directory, self._limit_bytes)
            self.error = ""
        except OSError as exc:
            self.error = f"the volume cannot be looked at: {exc.strerror or exc}"
