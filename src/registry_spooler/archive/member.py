"""Members: what a tar archive holds, by name, and how their names are to be read."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from registry_spooler.digest import Digest


class Kind(enum.Enum):
    """What a member is."""

    FILE = "file"
    HARDLINK = "hard link"
    SYMLINK = "symbolic link"
    DIRECTORY = "directory"
    SPARSE = "sparse file"
    OTHER = "special file"


@dataclass(frozen=True, slots=True)
class Member:
    """One member, by its normalised path. `size` and `offset` (where its data starts in the tar) are in bytes."""

    path: str
    kind: Kind
    size: int
    offset: int
    link: str = ""
    """Where a link points to, as written."""

    @property
    def blob_digest(self) -> Digest | None:
        """The digest that the path promises: `blobs/<algorithm>/<hex>`, in whatever folder."""
        raise NotImplementedError
