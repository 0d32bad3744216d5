"""What the archive side and the registry side agree on: a blob's bytes as they go over the wire.

The archive side implements `BlobReader` (it reads, checks, compresses and hashes, in threads); the
registry side reads it and sends. Neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from registry_spooler.oci.digest import Digest

if TYPE_CHECKING:
    from typing_extensions import Buffer


PIECE_BYTES: Final = 1 << 20
"""The most that one `read` returns. One hand-off to a thread per piece: large enough that its cost vanishes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A blob as it was read and sent, not as it was announced. Sizes are in bytes."""

    digest: Digest
    size: int
    diff_id: Digest | None = None
    """The digest of the uncompressed bytes; None when nobody asked for it."""
    sent_bytes: int | None = None
    """What went over the wire instead of its `size`: a recipe for it. None: the blob itself."""


class BlobReader(Protocol):
    """One reading of one blob, front to back, by one task.

    A piece is the caller's to keep: it is never written to again. The last `read` returns an empty piece, and
    only after everything that was expected of the content has been checked (it raises ArchiveError
    otherwise); from then on `measured` is known.
    """

    @property
    def size(self) -> int | None:
        """The number of bytes on the wire, when it is known before the reading; else None."""

    @property
    def rewindable(self) -> bool:
        """Whether `rewind` can go back to any byte. If not, the caller retains what it may have to send again."""

    @property
    def measured(self) -> Measured:
        """Digest and size of what was read; RuntimeError before the end."""

    async def read(self) -> Buffer:
        """The next piece, at most PIECE_BYTES; empty at the end."""

    async def rewind(self, offset: int) -> None:
        """Go back (never forward) to a byte of the wire form. Bytes that are read again count once in `measured`."""


BlobOpener = Callable[[], AbstractAsyncContextManager[BlobReader]]
"""Opens the same blob from its first byte, as often as it is called."""
