"""Compressed archives and pipes: members come by once, front to back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.layout import ArchiveImage
from registry_spooler.archive.member import Member
from registry_spooler.archive.reader import Expectation, MemberOpener
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError


class StreamedArchive:
    """An archive that is read once. What is not kept or read of a member before the next one is skipped."""

    rereadable: bool
    """Can the same source be opened again?"""
    position: int
    """How many bytes of the source have been consumed."""

    def members(self) -> AsyncIterator[Member]:
        """The members, in order, once. At the end all of the source has been read and its checksums hold."""
        raise NotImplementedError

    @property
    def head(self) -> bytes:
        """The first bytes (up to 512) of the current member, to `sniff` and to tell JSON by."""
        raise NotImplementedError

    async def keep(self) -> bytes | None:
        """Keep the current member for `images` and `content`; None when it is over the limits."""
        raise NotImplementedError

    def blob(
        self,
        *,
        compression: Compression = Compression.NONE,
        expect: Expectation = Expectation(),  # noqa: B008 - frozen
        inflate: bool = True,
    ) -> MemberOpener:
        """The current member's bytes, once: a second opening raises RuntimeError."""
        raise NotImplementedError

    async def images(self) -> tuple[ArchiveImage, ...]:
        """What the archive holds, from what was kept; to be asked after the last member."""
        raise NotImplementedError

    async def content(self, digest: Digest) -> bytes | None:
        """A kept manifest's or config's bytes; None when the archive lacks it or it was not kept."""
        raise NotImplementedError

    def find(self, digest: Digest) -> Member | None:
        """The member that holds a blob, by its path; None when it has not come by."""
        raise NotImplementedError

    def missing(self, what: str) -> ArchiveError:
        """The error for a member that is not there: `incomplete` when the tar has no end marker."""
        raise NotImplementedError
