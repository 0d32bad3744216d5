"""Plain tar files: every header is read first, by seeking, then any member at any time, side by side."""

from __future__ import annotations

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.layout import ArchiveImage
from registry_spooler.archive.member import Member
from registry_spooler.archive.reader import Expectation, MemberOpener
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError


class IndexedArchive:
    """A plain tar in a regular file. All members are known from the start."""

    async def images(self) -> tuple[ArchiveImage, ...]:
        """What the archive holds; ArchiveError with a sentence for the user when it holds no image."""
        raise NotImplementedError

    async def content(self, digest: Digest) -> bytes | None:
        """A manifest's or a config's bytes (at most 4 MiB), checked; None when the archive lacks it."""
        raise NotImplementedError

    def find(self, digest: Digest) -> Member | None:
        """The member that holds a blob, by its path; None when the archive lacks it."""
        raise NotImplementedError

    def missing(self, what: str) -> ArchiveError:
        """The error for a member that is not there: `incomplete` when the tar has no end marker."""
        raise NotImplementedError

    async def head(self, member: Member, size: int = 512) -> bytes:
        """The first bytes of a member, to `sniff`."""
        raise NotImplementedError

    def blob(
        self,
        member: Member,
        *,
        compression: Compression = Compression.NONE,
        expect: Expectation = Expectation(),  # noqa: B008 - frozen
        inflate: bool = True,
    ) -> MemberOpener:
        """A member's bytes, as they are (NONE; rewindable) or compressed on the way."""
        raise NotImplementedError
