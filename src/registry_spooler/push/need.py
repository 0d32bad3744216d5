"""One blob that a push has to see in the registry: where its bytes are, and what they must be."""

from __future__ import annotations

from dataclasses import dataclass

from registry_spooler.archive import (
    Compression,
    DockerImage,
    DockerLayer,
    Expectation,
    IndexedArchive,
    Member,
    StreamedArchive,
    layer_compression,
    sniff,
)
from registry_spooler.digest import Digest
from registry_spooler.manifest import Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A blob of an image. Equal needs are one blob, however often the image names it."""

    member: Member | None
    """None when the archive lacks it, so that only the registry can have it."""
    expect: Expectation
    compression: Compression = Compression.NONE
    """What it is compressed to on the way; NONE sends it as it is."""
    hint: Digest | None = None
    """What the member's name says: its digest as it is sent, or the diff ID of what is to be compressed.

    Worth asking the registry for, not worth failing over.
    """
    media_type: str = ""
    """For a layer of a manifest that is made here, when it is known before the bytes are."""

    foreign: Descriptor | None = None
    """A layer that no registry need hold (a Windows base layer), as the archive describes it."""

    @property
    def likely_digest(self) -> Digest | None:
        """The digest to ask the registry for before anything is read; None when it is compressed on the way."""
        return self.expect.digest or (self.hint if self.compression is Compression.NONE else None)

    @property
    def likely_diff_id(self) -> Digest | None:
        """The diff ID by which an earlier push may have remembered what the layer was compressed to."""
        return (self.expect.diff_id or self.hint) if self.compression is not Compression.NONE else None

    @property
    def size(self) -> int:
        """About how many bytes have to be read for it."""
        return self.member.size if self.member is not None else self.expect.size or 0


async def docker_needs(
    image: DockerImage,
    archive: IndexedArchive | StreamedArchive,
    setting: Compression,
    kinds: dict[Member, Compression],
) -> tuple[Need, ...]:
    """What a docker archive's image consists of, lowest layer first; a layer may come up twice.

    `kinds` says what a stream's members turned out to be; an indexed archive is looked into.
    """
    return tuple([await _docker_need(layer, archive, setting, kinds) for layer in image.layers])


async def _docker_need(
    layer: DockerLayer,
    archive: IndexedArchive | StreamedArchive,
    setting: Compression,
    kinds: dict[Member, Compression],
) -> Need:
    member = layer.member
    if member is None:
        return _absent_need(layer, archive)
    kind = sniff(await archive.head(member)) if isinstance(archive, IndexedArchive) else kinds[member]
    compression = layer_compression(member, kind, setting)
    if compression is not Compression.NONE:
        return Need(member=member, expect=Expectation(diff_id=layer.diff_id), compression=compression)
    digest = layer.diff_id if kind is Compression.NONE else member.blob_digest
    expect = Expectation(digest=digest, diff_id=layer.diff_id, compression=kind)
    return Need(member=member, expect=expect, hint=layer.expected_digest, media_type=kind.layer_media_type)


def _absent_need(layer: DockerLayer, archive: IndexedArchive | StreamedArchive) -> Need:
    """A layer that only the registry can have, or that none needs to have."""
    source = layer.source
    if source is not None and source.is_foreign and source.urls:
        return Need(member=None, expect=Expectation(digest=source.digest, size=source.size), foreign=source)
    if layer.expected_digest is None:
        raise archive.missing(f"the layer {layer.path!r}")
    kind = Compression.ZSTD if layer.path.endswith((".zst", ".tzst")) else Compression.GZIP
    expect = Expectation(digest=layer.expected_digest, diff_id=layer.diff_id)
    return Need(member=None, expect=expect, media_type=kind.layer_media_type)
