"""What a push has done: its progress while it runs, and its result, image by image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference


@dataclass(slots=True, kw_only=True)
class BlobCounts:
    """What became of the blobs of an image, or of a job."""

    blobs_uploaded: int = 0
    blobs_existing: int = 0
    """The repository held them already."""
    blobs_mounted: int = 0
    """Another repository of the registry held them."""
    uploaded_bytes: int = 0
    """The sizes of the blobs that were uploaded, each once."""
    rebuilt_layers: int = 0
    """How many of them were made at the far end from a layer that was there, and so were not sent."""
    saved_bytes: int = 0
    """What sending these would have taken in addition."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts as a receipt has them."""
        blobs = {"uploaded": self.blobs_uploaded, "existing": self.blobs_existing, "mounted": self.blobs_mounted}
        delta = {"layers": self.rebuilt_layers, "saved_bytes": self.saved_bytes}
        return {
            "blobs": blobs,
            "uploaded_bytes": self.uploaded_bytes,
            **({"delta": delta} if self.rebuilt_layers else {}),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> BlobCounts:
        """Read what `to_json` gave, whatever else stands beside it; ValueError when it is not that."""
        blobs, delta = document.get("blobs") or {}, document.get("delta") or {}
        return cls(
            blobs_uploaded=int(blobs.get("uploaded") or 0),
            blobs_existing=int(blobs.get("existing") or 0),
            blobs_mounted=int(blobs.get("mounted") or 0),
            uploaded_bytes=int(document.get("uploaded_bytes") or 0),
            rebuilt_layers=int(delta.get("layers") or 0),
            saved_bytes=int(delta.get("saved_bytes") or 0),
        )


@dataclass(slots=True, kw_only=True)
class Progress(BlobCounts):
    """Counters of one job. Only the event loop's thread writes them; sizes are in bytes."""

    bytes_total: int = 0
    """The size of the source; 0 when it is not known (standard input)."""
    bytes_done: int = 0
    """How much of the source is done: read, or found to be in the registry already."""
    bytes_read: int = 0
    bytes_sent: int = 0
    """What went to the registry as blobs, resent bytes included."""
    bytes_to_send: int = 0
    """`bytes_sent` included; only known from outside a cluster, where blobs are packed before they are sent."""
    bytes_skipped: int = 0
    """The sizes of the blobs that the registry had."""
    retries: Counter[str] = field(default_factory=Counter)
    """By reason, one of a fixed few words: `unreachable`, `status`, `upload`, `source`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An entry of an archive that was not pushed."""

    digest: Digest
    """Of its manifest; of its config, where a docker archive names no manifest."""
    reason: str
    name: str = ""
    """What the archive calls it; empty if it has no name."""

    def to_json(self) -> dict[str, str]:
        """Return the entry as a receipt has it."""
        document = {"digest": str(self.digest), "reason": self.reason}
        return document | ({"name": self.name} if self.name else {})

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> LeftOut:
        """Read what `to_json` gave; ValueError or KeyError when it is not that."""
        digest, name = Digest.parse(str(document["digest"])), str(document.get("name") or "")
        return cls(digest=digest, reason=str(document.get("reason") or ""), name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """An image that the registry now holds under its tag (or that was deleted)."""

    reference: Reference
    digest: Digest | None
    """None when an image that was to be deleted was not there."""
    pull_reference: str = ""
    """What to write as a pod's `image:`, with the digest; empty when it is not known where nodes pull from."""
    media_type: str = ""
    size_bytes: int = 0
    """The manifest and all that it names, each once, wherever it was."""
    platforms: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """The digests of those children of an index that neither the archive nor the registry held."""
    referrers: int = 0
    """How many signatures, attestations and SBOMs went with it."""
    left_out: tuple[LeftOut, ...] = ()
    """Entries of the archive that were not pushed."""
    repacked_from: Digest | None = None
    """The digest that it has in the archive, if its layers were compressed anew."""
    counts: BlobCounts = field(default_factory=BlobCounts)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a receipt that are the image's own."""
        return {
            "reference": str(self.reference),
            "digest": str(self.digest) if self.digest else None,
            **({"pull_reference": self.pull_reference} if self.pull_reference else {}),
            "media_type": self.media_type,
            "size_bytes": self.size_bytes,
            "platforms": list(self.platforms),
            "missing": list(self.missing),
            "referrers": self.referrers,
            "left_out": [entry.to_json() for entry in self.left_out],
            **({"repacked_from": str(self.repacked_from)} if self.repacked_from else {}),
            **self.counts.to_json(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ImageResult:
        """Read what `to_json` gave, whatever else stands beside it; ValueError or KeyError when it is not that."""
        digest, repacked_from = document.get("digest"), document.get("repacked_from")
        return cls(
            reference=Reference.parse(str(document["reference"])),
            digest=Digest.parse(str(digest)) if digest else None,
            pull_reference=str(document.get("pull_reference") or ""),
            media_type=str(document.get("media_type") or ""),
            size_bytes=int(document.get("size_bytes") or 0),
            platforms=tuple(document.get("platforms") or ()),
            missing=tuple(document.get("missing") or ()),
            referrers=int(document.get("referrers") or 0),
            left_out=tuple(LeftOut.from_json(entry) for entry in document.get("left_out") or ()),
            repacked_from=Digest.parse(str(repacked_from)) if repacked_from else None,
            counts=BlobCounts.from_json(document),
        )
