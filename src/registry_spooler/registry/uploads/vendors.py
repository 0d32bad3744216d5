"""What is known about registries that do not take chunks as the specification has it.

An upload starts with the quirks of the host's vendor; the registry's answers change them for the rest of the client's
life (`LearnedLimits`).
"""

from __future__ import annotations

import dataclasses
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
    """What the user has set. Sizes are in bytes."""

    form: UploadForm = UploadForm.AUTO
    chunk_size_bytes: int | None = None
    """None: what suits the host, 16 MiB when nothing is known about it."""
    restarts: int = 3
    """How often one blob may begin again from its first byte."""
    commit_seconds: float = 900.0
    """A registry on object storage may hash and copy tens of gigabytes before it answers the last PUT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorQuirks:
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


_ECR: Final = VendorQuirks(
    chunk_bytes=10 * MIB,
    long_chunk_bytes=10 * MIB,
    trusts_range=False,
    break_hint="ECR does this when the repository does not exist",
)
_STREAM: Final = VendorQuirks(ranged=False)
_ACR: Final = VendorQuirks(chunk_bytes=8 * MIB, long_chunk_bytes=8 * MIB)
_ARTIFACTORY: Final = VendorQuirks(ranged=False, checks_size=True, whole_put=False)
_DEFAULT: Final = VendorQuirks()
_BY_SUFFIX: Final = (
    (".amazonaws.com", _ECR),
    (".amazonaws.com.cn", _ECR),
    ("public.ecr.aws", _ECR),
    ("ghcr.io", _STREAM),
    (".pkg.dev", _STREAM),
    ("gcr.io", _STREAM),
    (".azurecr.io", _ACR),
    (".jfrog.io", _ARTIFACTORY),
)


def quirks_of(host: str, options: UploadOptions) -> VendorQuirks:
    """Return what is known about the host, overridden by the user's options."""
    quirks = next((known for suffix, known in _BY_SUFFIX if _is_under(host.lower(), suffix)), _DEFAULT)
    if options.form is not UploadForm.AUTO:
        quirks = dataclasses.replace(quirks, ranged=options.form is UploadForm.RANGED)
    if (size := options.chunk_size_bytes) is not None:
        quirks = dataclasses.replace(
            quirks,
            chunk_bytes=size,
            long_chunk_bytes=size,
            smallest_chunk_bytes=min(size, quirks.smallest_chunk_bytes),
        )
    return quirks


def _is_under(host: str, suffix: str) -> bool:
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith(f".{suffix}")


@dataclass(slots=True)
class LearnedLimits:
    """How uploads to a host go, by its vendor's quirks and by what it has answered to one client."""

    quirks: VendorQuirks

    def set(self, **changes: Any) -> None:
        """Change fields of `quirks`, for the rest of the client's life."""
        self.quirks = dataclasses.replace(self.quirks, **changes)

    def raise_minimum(self, minimum_bytes: int) -> None:
        """Honour `OCI-Chunk-Min-Length`; a minimum that would take much memory is met by a stream instead."""
        if minimum_bytes > CHUNK_MINIMUM_MAX_BYTES:
            self.set(ranged=False)
        else:
            self._resize(max, minimum_bytes)

    def halve_chunks(self, refused_bytes: int) -> bool:
        """Use smaller chunks from now on; False when they cannot be made smaller."""
        if refused_bytes // 2 < SMALLEST_CHUNK_BYTES:
            return False
        self._resize(min, refused_bytes // 2)
        return True

    def _resize(self, choose: Callable[[int, int], int], size: int) -> None:
        sizes = ("smallest_chunk_bytes", "chunk_bytes", "long_chunk_bytes")
        self.set(**{name: choose(size, getattr(self.quirks, name)) for name in sizes})
