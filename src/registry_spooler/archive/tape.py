"""A tape: bytes in their order, with a look ahead. What the tar reader reads from.

Blocking plain code, run in threads. A `FileTape` skips by seeking; a `StreamTape` skips by reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from registry_spooler.archive.source import FileSource

_PULL_BYTES: Final = 64 << 10
"""What is read ahead to look at a header. Large data is read past this buffer, without a copy."""

_SKIP_BYTES: Final = 1 << 20


class Tape(Protocol):
    """Bytes in order. `position` is that of the next byte; short answers mean that the tape has ended."""

    position: int

    def peek(self, count: int) -> bytes:
        """The next bytes, without going on."""

    def read(self, count: int) -> bytes:
        """The next bytes."""

    def skip(self, count: int) -> int:
        """Go on without looking; how many bytes there were to skip."""


class FileTape:
    """A regular file as a tape."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self.position = 0

    def peek(self, count: int) -> bytes:
        """See `Tape.peek`."""
        return self._source.read_at(self.position, count)

    def read(self, count: int) -> bytes:
        """See `Tape.read`."""
        content = self._source.read_at(self.position, count)
        self.position += len(content)
        return content

    def skip(self, count: int) -> int:
        """See `Tape.skip`."""
        skipped = min(count, self._source.size - self.position)
        self.position += skipped
        return skipped


class StreamTape:
    """A stream as a tape. `pull(n)` gives 1 to n bytes, none at the end; what it raises comes out of any method."""

    def __init__(self, pull: Callable[[int], bytes]) -> None:
        self._pull = pull
        self._buffer = b""
        self._at = 0
        self.position = 0

    def peek(self, count: int) -> bytes:
        """See `Tape.peek`."""
        while (have := len(self._buffer) - self._at) < count:
            more = self._pull(max(count - have, _PULL_BYTES))
            if not more:
                break
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        return self._buffer[self._at : self._at + count]

    def read(self, count: int) -> bytes:
        """See `Tape.read`."""
        first = self._buffer[self._at : self._at + count]
        self._at += len(first)
        parts, missing = [first] if first else [], count - len(first)
        while missing and (part := self._pull(missing)):
            parts.append(part)
            missing -= len(part)
        self.position += count - missing
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, count: int) -> int:
        """See `Tape.skip`."""
        skipped = 0
        while skipped < count and (step := len(self.read(min(_SKIP_BYTES, count - skipped)))):
            skipped += step
        return skipped
