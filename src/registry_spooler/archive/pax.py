"""PAX records: what a tar header is too narrow for.

https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_03
"""

from __future__ import annotations

from collections.abc import Iterator


def read_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The `length key=value` records, in order; ValueError when the content is something else."""
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
    """A record's decimal number; ValueError when it is none."""
    if not value.isdigit() or len(value) > 19:
        raise ValueError("a record's number is not one")
    return int(value)
