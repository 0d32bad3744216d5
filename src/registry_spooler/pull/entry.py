"""What goes into an archive: a list of entries, made before the first byte is written.

All sizes are in the manifests, so the whole archive is known by then but for the blobs' bytes, which
pass through piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from registry_spooler.digest import Digest
from registry_spooler.manifest import Descriptor
from registry_spooler.pull import tar


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in an archive: its bytes, or the blob that they are. `size` is in bytes."""

    path: str
    size: int
    content: bytes | Digest

    @classmethod
    def of(cls, path: str, content: bytes) -> Entry:
        """An entry whose bytes are at hand."""
        return cls(path, len(content), content)

    @classmethod
    def blob(cls, path: str, descriptor: Descriptor) -> Entry:
        """An entry that the registry holds."""
        return cls(path, descriptor.size, descriptor.digest)


def archive_bytes(entries: Iterable[Entry]) -> int:
    """The size of the whole archive."""
    members = sum(
        len(tar.header(entry.path, entry.size)) + entry.size + -entry.size % tar.BLOCK_BYTES for entry in entries
    )
    return members + len(tar.END)


def once(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Each path once, where it comes first: layers that an image names twice are written once."""
    found: dict[str, Entry] = {}
    for entry in entries:
        found.setdefault(entry.path, entry)
    return tuple(found.values())
