"""Which of an archive's images a reference means, and how a layer goes over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.image import ArchiveImage
from registry_spooler.archive.member import Member, shown
from registry_spooler.errors import ArchiveError
from registry_spooler.reference import Reference

_LISTED_MAX: Final = 20


def select_image(images: Sequence[ArchiveImage], reference: Reference) -> ArchiveImage:
    """The only image, or the one that is called so; ArchiveError lists what the archive holds."""
    if len(images) == 1:
        return images[0]
    matching = [image for image in images if _is_called(image, reference)]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(shown(str(image)) for image in images[:_LISTED_MAX]) + (
        ", …" if len(images) > _LISTED_MAX else ""
    )
    found = "none of them is called" if not matching else f"{len(matching)} of them are called"
    raise ArchiveError(f"the archive holds {len(images)} images, and {found} {reference}; it holds: {listed}")


def _is_called(image: ArchiveImage, reference: Reference) -> bool:
    return reference.tag in image.tags or any(name.matches(reference) for name in image.names)


def layer_compression(member: Member, kind: Compression, setting: Compression) -> Compression:
    """How a layer of a docker archive is sent: `setting` for plain ones, NONE (as it is) for all else.

    ArchiveError for xz and bzip2, which layers may not be.
    """
    if kind in (Compression.XZ, Compression.BZIP2):
        raise ArchiveError(
            f"the layer is compressed with {kind.value}; registries hold plain, gzip or zstd layers",
            where=shown(member.path),
        )
    return setting if kind is Compression.NONE else Compression.NONE
