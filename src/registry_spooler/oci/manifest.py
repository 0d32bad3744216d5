"""Descriptors, manifests and indexes: read from their bytes, never written back over them.

A manifest's digest is that of its bytes, so `Manifest` keeps the bytes it was read from and
pushes just these. https://github.com/opencontainers/image-spec/blob/main/manifest.md
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from registry_spooler.errors import ArchiveError
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest

MANIFEST_MAX_BYTES: Final = 4 << 20
"""What distribution, zot and Harbor take, and what the specification asks a registry to take."""

DESCRIPTORS_MAX: Final = 10_000
"""Layers of one manifest, or entries of one index. Images have at most 127 layers; artifacts may have hundreds."""

VALUES_MAX: Final = 250_000
"""Values in one JSON document: each may take fifty times the memory of its text."""

CONTAINERD_SUBJECT: Final = "io.containerd.manifest.subject"
"""The annotation by which an entry of a layout says of which manifest it speaks: containerd's, docker's since 29."""

IMAGE_NAME: Final = "io.containerd.image.name"
"""The annotation with an entry's full name, by which podman, nerdctl and docker call the image that they load."""

REFERENCE_NAME: Final = "org.opencontainers.image.ref.name"
"""The annotation with an entry's name, which is a full name or a tag alone."""

_NO_ANNOTATIONS: Final[dict[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """`os/architecture[/variant]`; `unknown/unknown` is an attestation's."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def read(cls, document: object) -> Platform | None:
        """From a descriptor's `platform`, or an image config's own fields; None when they name none."""
        if not isinstance(document, dict):
            return None
        values = {
            key: value if isinstance(value := document.get(key), str) else ""
            for key in ("os", "architecture", "variant")
        }
        return cls(**values) if values["os"] or values["architecture"] else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A typed, sized pointer to content. `size` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict, hash=False)
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @property
    def is_index(self) -> bool:
        """Does it point to an index (or a Docker manifest list)?"""
        return self.media_type in mediatype.INDEXES

    @property
    def is_manifest(self) -> bool:
        """Does it point to an image manifest?"""
        return self.media_type in mediatype.MANIFESTS

    @property
    def is_foreign(self) -> bool:
        """May a registry do without its bytes?"""
        return mediatype.is_foreign(self.media_type)

    @property
    def attests(self) -> Digest | None:
        """The image manifest that this attestation manifest speaks of, if it is one."""
        if self.annotations.get("vnd.docker.reference.type") != "attestation-manifest":
            return None
        try:
            return Digest.parse(self.annotations.get("vnd.docker.reference.digest", ""))
        except ValueError:
            return None

    @property
    def is_attestation(self) -> bool:
        """Is it an attestation, and so never "the image"?"""
        return self.annotations.get("vnd.docker.reference.type") == "attestation-manifest"

    def to_json(self) -> dict[str, Any]:
        """For a manifest of our own making."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            document["urls"] = list(self.urls)
        if self.annotations:
            document["annotations"] = self.annotations
        return document

    @classmethod
    def read(cls, document: object, *, where: str) -> Descriptor:
        """From a manifest's JSON; ArchiveError names `where` when it is no descriptor."""
        if not isinstance(document, dict):
            raise ArchiveError("a descriptor is not a JSON object", where=where)
        size = document.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ArchiveError(f"a descriptor has no valid size: {repr(size)[:40]}", where=where)
        try:
            digest = Digest.parse(str(document.get("digest")))
        except ValueError as exc:
            raise ArchiveError(
                f"a descriptor has no valid digest: {str(document.get('digest'))[:140]!r}", where=where
            ) from exc
        annotations = document.get("annotations") or {}
        urls = document.get("urls") or []
        return cls(
            media_type=sys.intern(str(document.get("mediaType") or "")),
            digest=digest,
            size=size,
            platform=Platform.read(document.get("platform")),
            annotations={str(key): str(value) for key, value in annotations.items()}
            if annotations and isinstance(annotations, dict)
            else _NO_ANNOTATIONS,
            urls=tuple(str(url) for url in urls) if isinstance(urls, list) else (),
            artifact_type=str(document.get("artifactType") or ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image manifest or an index, with the bytes it was read from.

    An image manifest has `config` and `layers`, an index has `manifests`; `blobs` are the config and
    the layers in their order.
    """

    content: bytes = field(repr=False)
    media_type: str
    digest: Digest
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        """Is it an index (or a Docker manifest list)?"""
        return self.media_type in mediatype.INDEXES

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content)

    @property
    def image_config(self) -> Descriptor | None:
        """Return the config if it is a container image's, or None for an index or an artifact."""
        is_image = self.config is not None and self.config.media_type in mediatype.IMAGE_CONFIGS
        return self.config if is_image else None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config, if there is one, then the layers."""
        return ((self.config,) if self.config is not None else ()) + self.layers

    def descriptor(self, *, platform: Platform | None = None) -> Descriptor:
        """What points to this manifest."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size, platform=platform)

    @classmethod
    def parse(cls, content: bytes, *, media_type: str = "", where: str = "manifest") -> Manifest:
        """Read a manifest's bytes.

        `media_type` is what points to it says, for a document that does not say itself. A document that is
        both a manifest and an index, or neither, is refused: readers would disagree about it
        (https://github.com/opencontainers/distribution-spec/security/advisories/GHSA-mc8v-mgrf-8f4m).
        """
        document = load_object(content, where=where)
        if (version := document.get("schemaVersion", 2)) != 2:
            raise ArchiveError(f"its schemaVersion is {str(version)[:40]!r}, and only 2 can be pushed", where=where)
        has_index, has_image = "manifests" in document, "layers" in document or "config" in document
        if has_index == has_image:
            what = "both an index and an image manifest" if has_index else "neither an index nor an image manifest"
            raise ArchiveError(f"it is {what}", where=where)
        own = str(
            document.get("mediaType") or media_type or (mediatype.OCI_INDEX if has_index else mediatype.OCI_MANIFEST)
        )
        if (own in mediatype.INDEXES) != has_index or own not in mediatype.INDEXES | mediatype.MANIFESTS:
            raise ArchiveError(f"its media type {own[:100]!r} does not fit what it holds", where=where)
        annotations = document.get("annotations") or {}
        return cls(
            content=content,
            media_type=own,
            digest=Digest.of(content),
            config=Descriptor.read(document["config"], where=where) if document.get("config") is not None else None,
            layers=_read_all(document.get("layers"), where=where),
            manifests=_read_all(document.get("manifests"), where=where),
            subject=Descriptor.read(document["subject"], where=where) if document.get("subject") is not None else None,
            artifact_type=str(document.get("artifactType") or ""),
            annotations={str(key): str(value) for key, value in annotations.items()}
            if isinstance(annotations, dict)
            else {},
        )


def load_json(content: bytes, *, where: str) -> Any:
    """Read JSON from an archive or a registry; ArchiveError when it is none, or has more values than VALUES_MAX."""
    if len(content) > VALUES_MAX and sum(map(content.count, (b",", b"[", b"{"))) > VALUES_MAX:
        raise ArchiveError(f"its JSON has more than {VALUES_MAX:,} values", where=where)
    try:
        return orjson.loads(content)
    except (orjson.JSONDecodeError, RecursionError) as exc:
        raise ArchiveError("it is not valid JSON", where=where) from exc


def load_object(content: bytes, *, where: str) -> dict[str, Any]:
    """Read a JSON object; ArchiveError when it is something else."""
    document = load_json(content, where=where)
    if not isinstance(document, dict):
        raise ArchiveError("it is not a JSON object", where=where)
    return document


def _read_all(documents: object, *, where: str) -> tuple[Descriptor, ...]:
    if documents is None:
        return ()
    if not isinstance(documents, list):
        raise ArchiveError("a list of descriptors is not a list", where=where)
    if len(documents) > DESCRIPTORS_MAX:
        raise ArchiveError(
            f"it lists {len(documents):,} descriptors; more than {DESCRIPTORS_MAX:,} are refused", where=where
        )
    return tuple(Descriptor.read(document, where=where) for document in documents)
