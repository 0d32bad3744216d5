"""The images of an archive, as its own documents describe them, and which of them a reference means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.tar_header import Member, blob_digest, shown
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Descriptor
from registry_spooler.oci.reference import ImageName, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What an archive calls an image."""

    names: tuple[ImageName, ...] = ()
    tags: tuple[str, ...] = ()
    """Names that are a tag alone, of whatever repository."""

    @classmethod
    def union(cls, several: Iterable[Names]) -> Names:
        """Return all names, each once, in their order."""
        parts = tuple(several)
        return cls(
            names=tuple(dict.fromkeys(name for part in parts for name in part.names)),
            tags=tuple(dict.fromkeys(tag for part in parts for tag in part.tags)),
        )

    def __or__(self, other: Names) -> Names:
        return Names.union((self, other))

    def __bool__(self) -> bool:
        return bool(self.names or self.tags)

    def __str__(self) -> str:
        return ", ".join([*map(str, self.names), *(f"(any):{tag}" for tag in self.tags)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """A manifest that speaks of an image, of one of its platforms, or of another referrer: a signature, an SBOM."""

    entry: Descriptor
    subject: Digest
    """What it speaks of."""
    tag: str = ""
    """Cosign's tag for it; empty for one that says itself what it speaks of, and goes by its digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OciImage:
    """An image of an OCI layout: `root` is a manifest or an index, to be pushed byte for byte."""

    root: Descriptor
    called: Names = Names()
    referrers: tuple[Referrer, ...] = ()
    """Manifests of the layout that speak of it."""

    @property
    def digest(self) -> Digest:
        """Return the digest of its manifest or index."""
        return self.root.digest

    @property
    def identity(self) -> object:
        """Return what is equal for two entries that are the same image."""
        return self.root.digest

    def __str__(self) -> str:
        return str(self.called) or f"one without a name ({self.root.digest.algorithm}:{self.root.digest.short}…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerLayer:
    """A layer of a docker archive.

    `member` is None when the archive does not hold it. `source` is what `LayerSources` says of it.
    """

    path: str
    diff_id: Digest
    member: Member | None
    source: Descriptor | None = None

    @property
    def expected_digest(self) -> Digest | None:
        """Return the digest of the layer as it would be stored, if the archive tells: for asking the registry."""
        name = self.path.rpartition("/")[2]
        stem = name.removesuffix(".tar.gz").removesuffix(".tar.zst").removesuffix(".tgz")
        try:
            return blob_digest(self.path) or (Digest("sha256", stem) if stem != name else None)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerImage:
    """An image of a docker archive: its config, unchanged, and its layers, lowest first."""

    config: ImageConfig
    layers: tuple[DockerLayer, ...]
    called: Names = Names()
    as_oci: OciImage | None = None
    """The same image as the OCI layout beside it has it, over the same plain layers."""
    referrers: tuple[Referrer, ...] = ()
    """None: signatures refer to manifests."""

    @property
    def digest(self) -> Digest:
        """Return the digest that names it in the archive: its manifest's, if there is one, or its config's."""
        return self.as_oci.digest if self.as_oci is not None else self.config.digest

    @property
    def identity(self) -> object:
        """Return what is equal for two entries that are the same image."""
        return self.config.digest, tuple(layer.diff_id for layer in self.layers)

    def __str__(self) -> str:
        digest = self.config.digest
        return str(self.called) or f"one without a name (image ID {digest.algorithm}:{digest.short}…)"


ArchiveImage = OciImage | DockerImage


_LISTED_MAX: Final = 20


def select_image(images: Sequence[ArchiveImage], reference: Reference) -> ArchiveImage:
    """Return the only image, or the one that is called so; ArchiveError lists what the archive holds."""
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
    return reference.tag in image.called.tags or any(name.matches(reference) for name in image.called.names)


def layer_compression(member: Member, kind: Compression, setting: Compression) -> Compression:
    """Return how a layer of a docker archive is sent: `setting` for plain ones, NONE (as it is) for all else.

    ArchiveError for xz and bzip2, which layers may not be.
    """
    if kind in (Compression.XZ, Compression.BZIP2):
        raise ArchiveError(
            f"the layer is compressed with {kind.value}; registries hold plain, gzip or zstd layers",
            where=shown(member.path),
        )
    return setting if kind is Compression.NONE else Compression.NONE
