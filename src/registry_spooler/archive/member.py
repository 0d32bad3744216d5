"""Members: what a tar archive holds, by name, and how their names are read.

Nothing is ever extracted, so a name cannot do harm; it is only compared, in its normalised form.
"""

from __future__ import annotations

import enum
import posixpath
import re
from dataclasses import dataclass
from typing import Final

from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError

_SHOWN_MAX: Final = 200
_BLOB_PATH: Final = re.compile(r"(?:^|/)blobs/([^/]+)/([^/]+)$")


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
        return blob_digest(self.path)


def require_file(member: Member, what: str = "it") -> None:
    """Raise ArchiveError unless a member is a regular file, stored whole."""
    if member.kind is Kind.SPARSE:
        reason = f"{what} is stored as a sparse file; make the archive again without tar's --sparse"
        raise ArchiveError(reason, where=shown(member.path))
    if member.kind is not Kind.FILE:
        raise ArchiveError(f"{what} is a {member.kind.value}, not a file", where=shown(member.path))


def blob_digest(path: str) -> Digest | None:
    """The digest in a path of an OCI layout, `blobs/<algorithm>/<hex>`; None for any other path."""
    match = _BLOB_PATH.search(path)
    try:
        return Digest(match[1], match[2]) if match else None
    except ValueError:
        return None


def normalise(path: str) -> str:
    """`./a//b/` and `/a/b` are `a/b`. A path that leaves the archive keeps its leading `..`."""
    if "." not in path and "//" not in path:
        return path.strip("/")
    normal = posixpath.normpath("./" + path.lstrip("/")) if path else ""
    return "" if normal == "." else normal


def escapes(path: str) -> bool:
    """Does a normalised path leave the archive?"""
    return path == ".." or path.startswith("../")


def shown(path: str) -> str:
    """A path for an error's sentence: of bounded length, on one line."""
    text = path if path.isprintable() else repr(path)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def quoted(path: str) -> str:
    """The same inside a sentence, where a path may be empty or read like words."""
    return repr(path) if len(path) <= _SHOWN_MAX else repr(path[:_SHOWN_MAX]) + "…"
