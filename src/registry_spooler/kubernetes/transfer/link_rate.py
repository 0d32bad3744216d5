"""How fast blobs have gone over the wire, remembered from push to push: a fast link makes deltas the slower way."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Final

FAST_BYTES_PER_SECOND: Final = 10e6
"""Where a delta is no quicker than what it saves.

To compare with a base and to rebuild the layer take some 30 ms for a plain megabyte, where sender and pod share two
slow processors; that is a quarter of it on the wire.
"""
MEASURED_MIN_BYTES: Final = 1 << 20
"""Less says more of delays than of the rate."""
_FILE_MAX_BYTES: Final = 64


class LinkRate:
    """The rate to one API server. `folder` is in the user's cache; nothing is read before `load`."""

    def __init__(self, folder: Path, server: str) -> None:
        self._path = folder / hashlib.sha256(server.encode()).hexdigest()[:32]
        self.bytes_per_second: float | None = None
        """None: nothing has been measured."""

    @property
    def is_fast(self) -> bool:
        """Return whether whole layers are known to be as quick as deltas."""
        return self.bytes_per_second is not None and self.bytes_per_second >= FAST_BYTES_PER_SECOND

    def note(self, size: int, seconds: float) -> None:
        """Take note of a transfer of `size` bytes; what is too small to tell is left out."""
        if size >= MEASURED_MIN_BYTES and seconds > 0:
            self.bytes_per_second = size / seconds

    def load(self) -> None:
        """Read what an earlier push has seen. Blocks; a file that cannot be read is as good as none."""
        with contextlib.suppress(OSError, ValueError), self._path.open(encoding="ascii") as file:
            rate = float(file.read(_FILE_MAX_BYTES))
            self.bytes_per_second = rate if rate > 0 else None

    def save(self) -> None:
        """Write it for the next push. Blocks; a disk that takes nothing is no reason to fail."""
        if self.bytes_per_second is None:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(f"{self.bytes_per_second:.0f}\n", encoding="ascii")
