"""Which of an archive's images a reference means, and how a layer goes over the wire."""

from __future__ import annotations

from collections.abc import Sequence

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.layout import ArchiveImage
from registry_spooler.archive.member import Member
from registry_spooler.reference import Reference


def select_image(images: Sequence[ArchiveImage], reference: Reference) -> ArchiveImage:
    """The only image, or the one that is called so; ArchiveError lists what the archive holds."""
    raise NotImplementedError


def layer_compression(member: Member, kind: Compression, setting: Compression) -> Compression:
    """How a layer of a docker archive is sent: `setting` for plain ones, NONE (as it is) for all else.

    ArchiveError for xz and bzip2, which layers may not be.
    """
    raise NotImplementedError
