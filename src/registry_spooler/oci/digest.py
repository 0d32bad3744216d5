"""Digests: the content addresses of blobs and manifests.

https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer


_HEX_LENGTHS: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm:hex`; sha256 and sha512, the two that the specification registers."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        if len(self.hex) != _HEX_LENGTHS.get(self.algorithm) or not _HEX.fullmatch(self.hex):
            raise ValueError(f"not a digest: {self.algorithm}:{self.hex}"[:200])

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hexadecimal digits, for people."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`; ValueError when it is something else."""
        algorithm, _, hexadecimal = text.partition(":")
        return cls(sys.intern(algorithm), hexadecimal)

    @classmethod
    def of(cls, content: Buffer, algorithm: str = "sha256") -> Digest:
        """The digest of bytes that are at hand."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())


EMPTY_JSON: Final = b"{}"
"""The content of the empty descriptor of the image specification."""
