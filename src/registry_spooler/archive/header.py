"""Tar headers: one 512-byte block, understood.

V7, ustar and GNU headers: https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
    """A size with the zeros that fill its last block."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def has_checksum(block: bytes) -> bool:
    """Does the block's checksum fit? Some old writers summed signed bytes."""
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
    """Does yet another block of an old GNU sparse map follow this one?"""
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
