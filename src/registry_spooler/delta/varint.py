"""Numbers of variable length, as LEB128 writes them: seven bits a byte, the lowest first.

https://protobuf.dev/programming-guides/encoding/#varints, and its zigzag form for numbers that may be negative.
"""

from __future__ import annotations

from registry_spooler.errors import DeltaError

_BITS_MAX = 63


def append(out: bytearray, number: int) -> None:
    """Write a number that is not negative."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def append_signed(out: bytearray, number: int) -> None:
    """Write a number that may be negative; small ones take a byte."""
    append(out, number << 1 if number >= 0 else (-number << 1) - 1)


class VarintReader:
    """Reads what others wrote. Every method raises DeltaError where the bytes end, or a number takes over 63 bits."""

    def __init__(self, content: bytes, what: str) -> None:
        self._content = content
        self._what = what
        self._at = 0

    @property
    def left(self) -> int:
        """Return how many bytes have not been read."""
        return len(self._content) - self._at

    def take(self, count: int) -> bytes:
        """Read so many bytes."""
        if count > self.left:
            raise self.error("it is cut off")
        self._at += count
        return self._content[self._at - count : self._at]

    def number(self, limit: int, of: str) -> int:
        """Read a number from 0 to `limit`; `of` says in the error what it counts."""
        number = shift = 0
        while True:
            if self._at == len(self._content):
                raise self.error("it is cut off")
            byte = self._content[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= _BITS_MAX:
                raise self.error("a number in it is too long")
        if number > limit:
            raise self.error(f"{number:,} {of}, more than the {limit:,} allowed")
        return number

    def signed(self) -> int:
        """Read a number that may be negative."""
        number = self.number((1 << _BITS_MAX) - 1, "of anything")
        return -(number + 1 >> 1) if number & 1 else number >> 1

    def error(self, reason: str) -> DeltaError:
        """Return the error that says what is wrong with the whole."""
        return DeltaError(f"{self._what}: {reason}")
