"""What is known about registries that do not take chunks as the specification has it.

A quirks is where an upload starts; what the registry then answers changes it for the rest of the
client's life (`LearnedLimits`). Every field can be set by the user, which ends the guessing.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Final

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
    """Is the blob's size compared after the upload, since the host was seen to keep a part only?"""
    trusts_range: bool = True
    """Does `Range` in the answer to a PATCH say what is stored? ECR's stays at the first chunk."""
    whole_put: bool = True
    """May a small blob go in one PUT?"""
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
    """What is known about the host, with the user's wishes over it."""
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
    """What has been learned about a host in one client's life; starts from its quirks."""

    quirks: VendorQuirks

    def learn_minimum(self, minimum_bytes: int) -> None:
        """Honour `OCI-Chunk-Min-Length`; a minimum that would take much memory is met by a stream instead."""
        if minimum_bytes > CHUNK_MINIMUM_MAX_BYTES:
            self.quirks = dataclasses.replace(self.quirks, ranged=False)
        elif minimum_bytes > self.quirks.smallest_chunk_bytes:
            self.quirks = dataclasses.replace(
                self.quirks,
                smallest_chunk_bytes=minimum_bytes,
                chunk_bytes=max(self.quirks.chunk_bytes, minimum_bytes),
                long_chunk_bytes=max(self.quirks.long_chunk_bytes, minimum_bytes),
            )

    def stream_only(self) -> None:
        """No ranges for this host, from now on."""
        self.quirks = dataclasses.replace(self.quirks, ranged=False)

    def no_whole_put(self) -> None:
        """No blob in one PUT for this host, from now on."""
        self.quirks = dataclasses.replace(self.quirks, whole_put=False)

    def distrust_range(self) -> None:
        """`Range` in its answers to PATCH says nothing."""
        self.quirks = dataclasses.replace(self.quirks, trusts_range=False)

    def halve_chunks(self, refused_bytes: int) -> bool:
        """Smaller chunks from now on; False when they cannot be made smaller."""
        size = refused_bytes // 2
        if size < SMALLEST_CHUNK_BYTES:
            return False
        self.quirks = dataclasses.replace(
            self.quirks,
            chunk_bytes=min(size, self.quirks.chunk_bytes),
            long_chunk_bytes=min(size, self.quirks.long_chunk_bytes),
            smallest_chunk_bytes=min(size, self.quirks.smallest_chunk_bytes),
        )
        return True
