"""The tar reader: members in their order, from bytes with a look ahead.

Blocking plain code, run in threads. A `FileByteReader` skips by seeking; a `StreamByteReader` skips by reading.

Flow of `next`: go to where the last member's data ends; read headers until one is a member (a PAX or GNU
header in between changes the one that follows); stop at the first byte of its data. It reads what
people make by hand: tars without an end marker, tars concatenated to each other, garbage behind the end.

https://www.gnu.org/software/tar/manual/html_node/Standard.html and
https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from registry_spooler.archive import tar_header as pax
from registry_spooler.archive.limits import (
    EXTENSIONS_MAX_BYTES,
    HEADER_EXTENSION_MAX_BYTES,
    MEMBERS_MAX,
    NAMES_MAX_BYTES,
    PATH_MAX_BYTES,
    RECORDS_MAX,
    ZERO_TAIL_MAX_BYTES,
)
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.tar_header import (
    BLOCK_BYTES,
    ZERO_BLOCK,
    Header,
    Kind,
    Member,
    NotAHeader,
    has_checksum,
    normalise,
    padded,
    read_header,
    shown,
    sparse_map_continues,
)
from registry_spooler.errors import ArchiveError, ArchiveTruncated

_PULL_BYTES: Final = 64 << 10
"""What is read ahead to look at a header. Large data is read past this buffer, without a copy."""

_SKIP_BYTES: Final = 1 << 20


class ByteReader(Protocol):
    """Bytes in order. `position` is that of the next byte; short answers mean that the tar has ended."""

    position: int

    def peek(self, count: int) -> bytes:
        """The next bytes, without going on."""

    def read(self, count: int) -> bytes:
        """The next bytes."""

    def skip(self, count: int) -> int:
        """Go on without looking; how many bytes there were to skip."""


class FileByteReader:
    """A regular file."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self.position = 0

    def peek(self, count: int) -> bytes:
        """See `ByteReader.peek`."""
        return self._source.read_at(self.position, count)

    def read(self, count: int) -> bytes:
        """See `ByteReader.read`."""
        content = self._source.read_at(self.position, count)
        self.position += len(content)
        return content

    def skip(self, count: int) -> int:
        """See `ByteReader.skip`."""
        skipped = min(count, self._source.size - self.position)
        self.position += skipped
        return skipped


class StreamByteReader:
    """A stream. `pull(n)` gives 1 to n bytes, none at the end; what it raises comes out of any method."""

    def __init__(self, pull: Callable[[int], bytes]) -> None:
        self._pull = pull
        self._buffer = b""
        self._at = 0
        self.position = 0

    def peek(self, count: int) -> bytes:
        """See `ByteReader.peek`."""
        while (have := len(self._buffer) - self._at) < count:
            more = self._pull(max(count - have, _PULL_BYTES))
            if not more:
                break
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        return self._buffer[self._at : self._at + count]

    def read(self, count: int) -> bytes:
        """See `ByteReader.read`."""
        first = self._buffer[self._at : self._at + count]
        self._at += len(first)
        parts, missing = [first] if first else [], count - len(first)
        while missing and (part := self._pull(missing)):
            parts.append(part)
            missing -= len(part)
        self.position += count - missing
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, count: int) -> int:
        """See `ByteReader.skip`."""
        skipped = 0
        while skipped < count and (step := len(self.read(min(_SKIP_BYTES, count - skipped)))):
            skipped += step
        return skipped


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
    b"D": Kind.DIRECTORY,
    b"S": Kind.SPARSE,
}
_HEADER_ONLY: Final = frozenset(b"123456")
"""Links, devices, directories and FIFOs have no data, whatever size their header claims."""

_TAIL_BYTES: Final = 64 << 10


@dataclass(slots=True)
class _Overrides:
    """What extension headers say of the member that follows them; None where they say nothing."""

    name: bytes | None = None
    link: bytes | None = None
    size: int | None = None
    sparse: bool = False


@dataclass(slots=True)
class TarReader:
    """Reads one tar, once. `ended`: an end marker has been seen."""

    data: ByteReader
    ended: bool = False
    archives: int = 1
    """How many tars are concatenated, as far as read."""

    _data_end: int = 0
    _member_end: int = 0
    _last: str = ""
    _count: int = 0
    _names_bytes: int = 0
    _extensions_bytes: int = 0
    _records: int = 0
    _globals: _Overrides = field(default_factory=_Overrides)

    def next(self) -> Member | None:
        """The next member, with `data` at its first byte; None at the end."""
        self._finish_member()
        local = _Overrides()
        while True:
            header = self._next_header()
            if header is None:
                return None
            self._count += 1
            if self._count > 2 * MEMBERS_MAX:  # each member may have an extension header of its own
                raise ArchiveError(f"it has more than {MEMBERS_MAX:,} members", where=self._where())
            if header.type in (b"x", b"X", b"g", b"L", b"K"):
                self._extend(header, local)
            elif header.type not in (b"V", b"N"):
                return self._member(header, local)
            else:
                self._pass(header.size)

    def _finish_member(self) -> None:
        """Go on behind the last member's data; its padding may be missing at the very end."""
        data = self.data
        if data.position < self._data_end:
            data.skip(self._data_end - data.position)
        if data.position < self._data_end:
            missing = self._data_end - data.position
            raise ArchiveTruncated(f"the archive ends {missing:,} bytes before this member does", where=self._last)
        data.skip(self._member_end - data.position)

    def _next_header(self) -> Header | None:
        block = self.data.read(BLOCK_BYTES)
        if block == ZERO_BLOCK:
            self.ended = True
            block = self._next_archive()
        if not block or (self.ended and len(block) < BLOCK_BYTES):
            return None
        if len(block) < BLOCK_BYTES:
            raise ArchiveTruncated("the archive ends within a header", where=self._where())
        try:
            return read_header(block)
        except NotAHeader as exc:
            if not self._last and not self._count:
                raise ArchiveError(f"it is no tar archive: {exc}", where=self._where(BLOCK_BYTES)) from exc
            raise ArchiveError(f"the archive is corrupt: {exc}", where=self._where(BLOCK_BYTES)) from exc

    def _next_archive(self) -> bytes:
        """Look behind an end marker: the first header of another tar, or nothing."""
        begin, data = self.data.position, self.data
        while data.position - begin < ZERO_TAIL_MAX_BYTES:
            zeros = data.peek(_TAIL_BYTES)
            if not zeros:
                return b""
            used = len(zeros) - len(zeros.lstrip(b"\0"))
            data.skip(used if used == len(zeros) else used // BLOCK_BYTES * BLOCK_BYTES)
            if used == len(zeros):
                continue
            block = data.peek(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES or not has_checksum(block):
                return b""  # garbage, which every tar ignores here
            data.skip(BLOCK_BYTES)
            self.ended = False
            self.archives += 1
            return block
        return b""

    def _member(self, header: Header, local: _Overrides) -> Member:
        if header.type == b"M":
            raise ArchiveError(
                "it continues a member of another volume; a multi-volume tar is read whole or not at all"
            )
        while header.sparse_continues and sparse_map_continues(self._block()):
            pass
        extra = self._globals
        name = header.name if (name := local.name or extra.name) is None else name
        link = header.link if (link := local.link or extra.link) is None else link
        size = header.size if (size := local.size if local.size is not None else extra.size) is None else size
        if max(len(name), len(link)) > PATH_MAX_BYTES:
            raise ArchiveError(f"a member's name is longer than {PATH_MAX_BYTES} bytes", where=self._where(BLOCK_BYTES))
        kind = Kind.SPARSE if local.sparse or extra.sparse else _KINDS.get(header.type, Kind.OTHER)
        if kind is Kind.FILE and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # as V7 tar wrote them
        if header.type[0] in _HEADER_ONLY:
            size = 0
        path, target = normalise(_decode(name)), _decode(link)
        self._names_bytes += sys.getsizeof(path) + (sys.getsizeof(target) if target else 0)
        if self._names_bytes > NAMES_MAX_BYTES:
            raise ArchiveError(
                f"the names of its members take more than {NAMES_MAX_BYTES >> 20} MiB, as in no image archive",
                where=self._where(BLOCK_BYTES),
            )
        self._last = shown(path)
        self._data_end = self.data.position + size
        self._member_end = self.data.position + padded(size)
        return Member(path, kind, size, self.data.position, target)

    def _extend(self, header: Header, local: _Overrides) -> None:
        """Read an extension header: GNU's long names, or PAX records for the next member (x) or for all (g)."""
        if header.size > HEADER_EXTENSION_MAX_BYTES:
            raise ArchiveError(
                f"an extended header claims {header.size:,} bytes; more than {HEADER_EXTENSION_MAX_BYTES:,} is refused",
                where=self._where(BLOCK_BYTES),
            )
        self._extended_by(header.size)
        content = self.data.read(header.size)
        if len(content) < header.size:
            raise ArchiveTruncated("the archive ends within an extended header", where=self._where())
        self.data.skip(padded(header.size) - header.size)
        if header.type == b"L":
            local.name = content.partition(b"\0")[0]
        elif header.type == b"K":
            local.link = content.partition(b"\0")[0]
        else:
            self._apply_pax(content, self._globals if header.type == b"g" else local)

    def _apply_pax(self, content: bytes, overrides: _Overrides) -> None:
        real_name = None
        try:
            for key, value in pax.read_records(content):
                self._records += 1
                if self._records > RECORDS_MAX:
                    raise ArchiveError(f"it has more than {RECORDS_MAX:,} PAX records", where=self._where())
                if key == b"path":
                    overrides.name = value or None
                elif key == b"linkpath":
                    overrides.link = value or None
                elif key == b"size":
                    overrides.size = pax.read_number(value) if value else None
                elif key.startswith(b"GNU.sparse."):
                    overrides.sparse = True
                    real_name = value if key == b"GNU.sparse.name" else real_name
        except ValueError as exc:
            raise ArchiveError(f"an extended header is corrupt: {exc}", where=self._where()) from exc
        overrides.name = real_name or overrides.name

    def _pass(self, size: int) -> None:
        """Go over the data of a header that is no member: a volume's label, an old list of names."""
        self._extended_by(size)
        if self.data.skip(padded(size)) < size:
            raise ArchiveTruncated("the archive ends within a header's data", where=self._where())

    def _extended_by(self, size: int) -> None:
        """Count what is read of headers besides those of members."""
        self._extensions_bytes += size
        if self._extensions_bytes > EXTENSIONS_MAX_BYTES:
            raise ArchiveError(
                f"its extended headers have more than {EXTENSIONS_MAX_BYTES >> 20} MiB", where=self._where(BLOCK_BYTES)
            )

    def _block(self) -> bytes:
        self._extended_by(BLOCK_BYTES)
        block = self.data.read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise ArchiveTruncated("the archive ends within a header", where=self._where())
        return block

    def _where(self, back: int = 0) -> str:
        behind = f", behind {self._last}" if self._last else ""
        return f"byte {self.data.position - back}{behind}"


def _decode(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        # Names that are not UTF-8 stay tellable apart, and printable. An error handler would take milliseconds.
        return name.decode("latin-1").encode("unicode_escape").decode()
