"""Plain tar files: every header is read first, by seeking, then any member at any time, side by side."""

from __future__ import annotations

import time
from typing import Final

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.image import ArchiveImage
from registry_spooler.archive.layout import find_images
from registry_spooler.archive.measure import NOTHING_EXPECTED, Expectation
from registry_spooler.archive.member import Member, require_file, shown
from registry_spooler.archive.reader import MemberOpener, range_blob
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.tape import FileTape
from registry_spooler.archive.tar import TarReader
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError
from registry_spooler.manifest import Descriptor, Manifest
from registry_spooler.result import LeftOut
from registry_spooler.threads import in_worker

_HEAD_BYTES: Final = 512
_STEP_SECONDS: Final = 0.05
"""How long headers are read before a cancellation, and other work, get their chance."""


class IndexedArchive:
    """A plain tar in a regular file. All members are known from the start; any task may read any of them."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._reader = TarReader(FileTape(source))
        self._contents = Contents(fetch=self._fetch)

    async def index(self) -> None:
        """Read all headers; called once, by who makes this."""
        while not await in_worker(self._index_some):
            pass

    def _index_some(self) -> bool:
        until = time.monotonic() + _STEP_SECONDS
        while time.monotonic() < until:
            member = self._reader.next()
            if member is None:
                self._contents.complete = self._reader.ended
                return True
            self._contents.add(member, self._reader.archives)
        return False

    def _fetch(self, member: Member) -> bytes:
        return self._source.read_at(member.offset, member.size)

    async def images(self) -> tuple[ArchiveImage, ...]:
        """What the archive holds; ArchiveError with a sentence for the user when it holds no image."""
        return await in_worker(find_images, self._contents)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Entries of the index that belong to no image; known when the images are."""
        return tuple(self._contents.left_out)

    async def content(self, digest: Digest) -> bytes | None:
        """A manifest's or a config's bytes (at most 4 MiB), checked; None when the archive lacks it."""
        return await in_worker(self._contents.content, digest)

    async def manifest(self, descriptor: Descriptor) -> Manifest | None:
        """The manifest that a descriptor points to, read once; None when the archive lacks it."""
        return await in_worker(self._contents.manifest, descriptor)

    def find(self, digest: Digest) -> Member | None:
        """The member that holds a blob, by its path; None when the archive lacks it."""
        return self._contents.find(digest)

    def missing(self, what: str) -> ArchiveError:
        """The error for a member that is not there: `incomplete` when the tar has no end marker."""
        return self._contents.missing(what)

    async def head(self, member: Member, size: int = _HEAD_BYTES) -> bytes:
        """The first bytes of a member, to `sniff`."""
        return await in_worker(self._source.read_at, member.offset, min(size, member.size))

    def blob(
        self,
        member: Member,
        *,
        compression: Compression = Compression.NONE,
        expect: Expectation = NOTHING_EXPECTED,
        inflate: bool = True,
        hashes: bool = True,
    ) -> MemberOpener:
        """A member's bytes, as they are (NONE; rewindable) or compressed on the way. `hashes`: see `Passing`."""
        require_file(member)
        return range_blob(
            self._source,
            member.offset,
            member.size,
            compression=compression,
            expect=expect,
            inflate=inflate,
            hashes=hashes,
            name=shown(member.path),
        )
