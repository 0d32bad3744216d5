"""Tar headers and PAX records, and the members that they describe.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_03

V7, ustar and GNU headers: https://www.gnu.org/software/tar/manual/html_node/Standard.html

Nothing is ever extracted, so a name cannot do harm; it is only compared, in its normalised form.
"""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest


def read_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the `length key=value` records, in order; ValueError when the content is something else."""
    position = 0
    while position < len(content):
        digits, space, _ = content[position : position + 20].partition(b" ")
        if not space or not digits.isdigit():
            if not content[position:].strip(b"\0"):
                return  # some writers pad with zeros inside the header's size
            raise ValueError("a record has no length")
        end = position + int(digits)
        record = content[position + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(content) or not record.endswith(b"\n") or not equals:
            raise ValueError("a record is not `length key=value`")
        yield key, value
        position = end


def read_number(value: bytes) -> int:
    """Return a record's decimal number; ValueError when it is none."""
    if not value.isdigit() or len(value) > 19:
        raise ValueError("a record's number is not one")
    return int(value)


BLOCK_BYTES: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK_BYTES)

_SIZE_MAX: Final = 1 << 62
_USTAR: Final = b"ustar\0"
_CHECKSUM: Final = slice(148, 156)
_SPARSE_CONTINUES: Final = 482
"""Where an old GNU sparse header says that more of its map follows; in those blocks it is byte 504."""


@dataclass(frozen=True, slots=True)
class Header:
    """A header's fields, names still as bytes. `size` is in bytes, and of the data that follows."""

    name: bytes
    type: bytes
    size: int
    link: bytes
    sparse_continues: bool = False


class NotAHeader(ValueError):
    """The block is no tar header; the reason is the message."""


def padded(size: int) -> int:
    """Return a size with the zeros that fill its last block."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def has_checksum(block: bytes) -> bool:
    """Return whether the block's checksum fits. Some old writers summed signed bytes."""
    try:
        expected = _number(block[_CHECKSUM])
    except NotAHeader:
        return False
    unsigned = sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")
    if unsigned == expected:
        return True
    outside = block[:148] + block[156:]
    return unsigned - 256 * sum(byte > 127 for byte in outside) == expected


def read_header(block: bytes) -> Header:
    """Understand a block; NotAHeader when its checksum or its numbers are wrong."""
    if not has_checksum(block):
        raise NotAHeader("the checksum of the header is wrong")
    name, kind = _text(block[:100]), block[156:157]
    magic = block[257:263]
    if magic == _USTAR:
        # star (magic "tar" at the very end) uses the last bytes of the prefix for times.
        prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
        name = prefix + b"/" + name if prefix else name
    sparse = kind == b"S" and bool(block[_SPARSE_CONTINUES])
    return Header(name, kind, _number(block[124:136]), _text(block[157:257]), sparse)


def sparse_map_continues(block: bytes) -> bool:
    """Return whether yet another block of an old GNU sparse map follows this one."""
    return bool(block[504])


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits with spaces or NUL around, or GNU's base-256 with the top bit set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] == 0xFF or value > _SIZE_MAX:
            raise NotAHeader("a number in the header is negative or too large")
        return value
    digits = _text(field).strip(b" ")
    try:
        if digits and not digits.isdigit():
            raise NotAHeader("a number in the header is not octal")
        return int(digits or b"0", 8)
    except ValueError:
        raise NotAHeader("a number in the header is not octal") from None


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
    """Return the digest in a path of an OCI layout, `blobs/<algorithm>/<hex>`; None for any other path."""
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
    """Return whether a normalised path leaves the archive."""
    return path == ".." or path.startswith("../")


def shown(path: str) -> str:
    """A path for an error's sentence: of bounded length, on one line."""
    text = path if path.isprintable() else repr(path)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def quoted(path: str) -> str:
    """The same inside a sentence, where a path may be empty or read like words."""
    return repr(path) if len(path) <= _SHOWN_MAX else repr(path[:_SHOWN_MAX]) + "…"
