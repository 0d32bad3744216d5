"""What is known about registries that do not take chunks as the specification has it.

The limits of a client start with the quirks of the host's vendor, overridden by the user's options; the registry's
answers change them for the rest of the client's life.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MIB: Final = 1 << 20
CHUNK_MINIMUM_MAX_BYTES: Final = 64 * MIB
"""The most that a registry may ask for as the least chunk: chunks of some streams are held in memory."""
SMALLEST_CHUNK_BYTES: Final = MIB // 4
"""Where halving the chunks for a proxy's sake ends."""


class UploadForm(enum.Enum):
    """How a blob goes over the wire."""

    AUTO = "auto"
    """What the host is known for, ranged chunks for all others."""
    RANGED = "ranged"
    """PATCHes with Content-Range and Content-Length: can be resumed, passes proxies that limit sizes."""
    STREAM = "stream"
    """One PATCH without Content-Range, as docker sends it: every registry takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadOptions:
    """What the user has set."""

    form: UploadForm = UploadForm.AUTO
    chunk_size_bytes: int | None = None
    """None: what suits the host, 16 MiB when nothing is known about it."""


@dataclass(slots=True, kw_only=True)
class LearnedLimits:
    """How uploads to a host go. Sizes are in bytes."""

    ranged: bool = True
    chunk_bytes: int = 16 * MIB
    """The size of a chunk whose bytes have to be retained."""
    long_chunk_bytes: int = 1024 * MIB
    """The size of a chunk that can be read again from its source: each chunk costs the registry a flush to its disk."""
    smallest_chunk_bytes: int = 5 * MIB
    """Of every chunk but the last; object storage behind a registry copies data for smaller ones."""
    checks_size: bool = False
    """Compare the blob's size after the upload: the host was seen to keep only a part."""
    trusts_range: bool = True
    """`Range` in the answer to a PATCH says what is stored. ECR's stays at the first chunk."""
    whole_put: bool = True
    """A small blob may go in one PUT."""
    break_hint: str = ""
    """What it may mean that the host breaks the connection off at a blob's first bytes."""

    @classmethod
    def of_host(cls, host: str, options: UploadOptions) -> LearnedLimits:
        """Return what is known about the host, overridden by the user's options."""
        limits = cls(**next((known for domain, known in _QUIRKS.items() if f".{host.lower()}".endswith(domain)), {}))
        if options.form is not UploadForm.AUTO:
            limits.ranged = options.form is UploadForm.RANGED
        if (size := options.chunk_size_bytes) is not None:
            limits.chunk_bytes = limits.long_chunk_bytes = size
            limits.smallest_chunk_bytes = min(size, limits.smallest_chunk_bytes)
        return limits

    def raise_minimum(self, minimum_bytes: int) -> None:
        """Honour `OCI-Chunk-Min-Length`; a minimum that would take much memory is met by a stream instead."""
        if minimum_bytes > CHUNK_MINIMUM_MAX_BYTES:
            self.ranged = False
        else:
            self._resize(max, minimum_bytes)

    def halve_chunks(self, refused_bytes: int) -> bool:
        """Use smaller chunks from now on; False when they cannot be made smaller."""
        if refused_bytes // 2 < SMALLEST_CHUNK_BYTES:
            return False
        self._resize(min, refused_bytes // 2)
        return True

    def _resize(self, choose: Callable[[int, int], int], size: int) -> None:
        self.chunk_bytes = choose(size, self.chunk_bytes)
        self.long_chunk_bytes = choose(size, self.long_chunk_bytes)
        self.smallest_chunk_bytes = choose(size, self.smallest_chunk_bytes)


_ECR: Final = {
    "chunk_bytes": 10 * MIB,
    "long_chunk_bytes": 10 * MIB,
    "trusts_range": False,
    "break_hint": "ECR does this when the repository does not exist",
}
_QUIRKS: Final[dict[str, dict[str, Any]]] = {
    ".amazonaws.com": _ECR,
    ".amazonaws.com.cn": _ECR,
    ".public.ecr.aws": _ECR,
    ".ghcr.io": {"ranged": False},
    ".pkg.dev": {"ranged": False},
    ".gcr.io": {"ranged": False},
    ".azurecr.io": {"chunk_bytes": 8 * MIB, "long_chunk_bytes": 8 * MIB},
    ".jfrog.io": {"ranged": False, "checks_size": True, "whole_put": False},
}
"""By the domain that a host is, or is in."""
