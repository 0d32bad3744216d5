"""A reel: takes a stream apart into members and their data, in batches.

Plain code for the thread that decompresses, one call per batch. Small members come many to a batch, so that a
hundred thousand of them cost few hand-offs; a large member comes in pieces of PIECE_BYTES, counted from
its first byte, so that compressing it gives the same as when it is read from a plain tar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.header import BLOCK_BYTES
from registry_spooler.archive.inflation import Inflater, TrailingGarbage
from registry_spooler.archive.limits import TAIL_MAX_BYTES, WINDOW_MAX_BYTES
from registry_spooler.archive.member import Member
from registry_spooler.archive.recognition import check_inside, recognise
from registry_spooler.archive.source import Feed
from registry_spooler.archive.tape import StreamTape
from registry_spooler.archive.tar import TarReader
from registry_spooler.blob import PIECE_BYTES
from registry_spooler.errors import ArchiveError, SpoolerError

_INPUT_BYTES: Final = 256 << 10
_BATCH_PARTS: Final = 1024
_DRAIN_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a member's data. `member` is set on its first part, `last` on its last."""

    member: Member | None
    data: bytes
    last: bool
    volume: int


class InflatedTape:
    """A tape, decompressed. `check` is called before each piece of output, and may raise."""

    def __init__(
        self, tape: StreamTape, compression: Compression, check: Callable[[], None], window_max_bytes: int
    ) -> None:
        self._tape = tape
        self._check = check
        self._inflater = Inflater(compression, window_max_bytes=window_max_bytes)

    def read(self, count: int) -> bytes:
        """The next bytes, 1 to `count`; none at the end, after its checksums have been checked."""
        while True:
            self._check()
            data = b""
            if self._inflater.needs_input:
                data = self._tape.read(_INPUT_BYTES)
                if not data:
                    self._inflater.finish()
                    return b""
            if output := self._inflater.inflate(data, count):
                return output


class Reel:
    """Members and their data, batch by batch. Nothing is read before the first batch is asked for.

    `finished` turns true with the batch behind which there is nothing; `ended` says whether the tar's end marker
    has been seen.
    """

    def __init__(self, feed: Feed, *, window_max_bytes: int = WINDOW_MAX_BYTES) -> None:
        self._feed = feed
        self._window_max_bytes = window_max_bytes
        self._raw = StreamTape(feed.read)
        self._tape = self._raw
        self._reader: TarReader | None = None
        self._left = 0
        self._behind_last = False
        self._tail_bytes = 0
        self._failure: SpoolerError | None = None
        self.ended = False
        self.finished = False

    def _begin(self) -> TarReader:
        """Look what it is, and get to the tar."""
        compression = recognise(self._raw.peek(BLOCK_BYTES))
        if compression is not Compression.NONE:
            self._tape = StreamTape(InflatedTape(self._raw, compression, self._feed.check, self._window_max_bytes).read)
            check_inside(self._tape.peek(BLOCK_BYTES), compression)
        return TarReader(self._tape)

    def next_batch(self) -> list[Part]:
        """The next parts: up to PIECE_BYTES of small members, or one piece of a large one. See `finished`.

        What goes wrong behind some parts is raised by the next call: members that are whole are good for something.
        """
        if self._failure is not None:
            raise self._failure
        if self._reader is None:
            self._reader = self._begin()
        parts: list[Part] = []
        taken = 0
        while taken < PIECE_BYTES and len(parts) < _BATCH_PARTS and not self._behind_last:
            try:
                part = self._next_part(self._reader)
            except SpoolerError as exc:
                if not parts:
                    raise
                self._failure = exc
                break
            if part is None:
                self._behind_last, self.ended = True, self._reader.ended
                break
            parts.append(part)
            taken += len(part.data)
        if self._behind_last and not parts:
            self._drain()
        return parts

    def _next_part(self, reader: TarReader) -> Part | None:
        member = None
        if not self._left:
            member = reader.next()
            if member is None:
                return None
            self._left = member.size
        wanted = min(PIECE_BYTES, self._left)
        data = self._tape.read(wanted)
        self._left -= wanted
        if len(data) < wanted:
            reader.next()  # raises: the member is cut off
        return Part(member, data, not self._left, reader.archives)

    def _drain(self) -> None:
        """Read what is behind the end: padding, garbage, and the checksums of the compressed stream."""
        if self._tail_bytes > TAIL_MAX_BYTES:
            raise ArchiveError(f"more than {TAIL_MAX_BYTES >> 20} MiB follow the end of the tar archive")
        try:
            skipped = self._tape.skip(_DRAIN_BYTES)
            self._tail_bytes += skipped
            self.finished = skipped < _DRAIN_BYTES
        except TrailingGarbage:
            self.finished = True  # as behind a plain tar
