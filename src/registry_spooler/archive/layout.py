"""Which images an archive holds: OCI layouts, docker archives, and what is both."""

from __future__ import annotations

from dataclasses import dataclass

from registry_spooler.archive.member import Member
from registry_spooler.digest import Digest
from registry_spooler.manifest import Descriptor
from registry_spooler.reference import ImageName


@dataclass(frozen=True, slots=True, kw_only=True)
class OciImage:
    """An image of an OCI layout: `root` is a manifest or an index, to be pushed byte for byte."""

    root: Descriptor
    names: tuple[ImageName, ...] = ()
    tags: tuple[str, ...] = ()
    """Names that are a tag alone, of whatever repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerLayer:
    """A layer of a docker archive.

    `member` is None when the archive does not hold it. `source` is what `LayerSources` says of it.
    """

    path: str
    diff_id: Digest
    member: Member | None
    source: Descriptor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerImage:
    """An image of a docker archive: its config's bytes and its layers, lowest first."""

    config: bytes
    layers: tuple[DockerLayer, ...]
    names: tuple[ImageName, ...] = ()
    tags: tuple[str, ...] = ()


ArchiveImage = OciImage | DockerImage
