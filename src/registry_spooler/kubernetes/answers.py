"""What a spooler's pod answers, typed: an image's description, the failed files, the status.

Whoever answers there may be of another version or may lie, so each field is read with its type, and an answer without
it raises UnreadableAnswer. `document` is the whole answer, for fields that have no attribute here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from registry_spooler.kubernetes.wire import Document, reading
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobDescription:
    """A layer or a config. `size_bytes` is its size in the registry."""

    digest: Digest
    media_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformDescription:
    """One manifest of an image. `platform` is `os/arch[/variant]`, and empty for an artifact or an attestation."""

    platform: str
    digest: Digest
    media_type: str
    size_bytes: int
    layers: tuple[BlobDescription, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDescription:
    """An image as `registry-client inspect` describes it. `size_bytes` counts every blob once."""

    reference: Reference
    digest: Digest
    media_type: str
    size_bytes: int
    platforms: tuple[PlatformDescription, ...]
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, answer: Document) -> ImageDescription:
        """Read an answer of `registry-client inspect --json`."""
        with reading("inspect.reference", "a reference"):
            reference = Reference.parse(answer["reference"].text())
        return cls(
            reference=reference,
            digest=answer["digest"].digest(),
            media_type=answer["media_type"].text(),
            size_bytes=answer["size_bytes"].count(),
            platforms=tuple(_platform(entry) for entry in answer["platforms"].entries()),
            document=answer.fields(),
        )


def _platform(entry: Document) -> PlatformDescription:
    return PlatformDescription(
        platform=entry["platform"].text_or_none(),
        digest=entry["digest"].digest(),
        media_type=entry["media_type"].text(),
        size_bytes=entry["size_bytes"].count(),
        layers=tuple(
            BlobDescription(
                digest=layer["digest"].digest(),
                media_type=layer["media_type"].text(),
                size_bytes=layer["size_bytes"].count(),
            )
            for layer in entry["layers"].entries()
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedFile:
    """A spool file that failed: `.failed/NAME.error.json`."""

    name: str
    """The file's name in `.failed`."""
    error: str
    """One sentence that a user can act on."""
    reference: Reference | None
    """None where the file's name means no image."""
    attempts: int
    """How often it was tried; 0 for a file without a record."""
    time: datetime | None
    """When it failed; None for a file without a record."""
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, answer: Document) -> FailedFile:
        """Read one record of `registry-client failed --json`."""
        reference, time = answer["reference"].text_or_none(), answer["time"].text_or_none()
        attempts = answer["attempts"]
        with reading(answer.where, "a record of a failure"):
            return cls(
                name=answer["name"].text(),
                error=answer["error"].text(),
                reference=Reference.parse(reference) if reference else None,
                attempts=attempts.count() if attempts.value is not None else 0,
                time=datetime.fromisoformat(time) if time else None,
                document=answer.fields(),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolerStatus:
    """What the spooler is doing: its `/status`."""

    version: str
    is_ready: bool
    registry: str
    """The registry's address."""
    registry_is_up: bool
    pull_host: str
    """Where the nodes reach the registry, as an image name begins; empty when nobody told the spooler."""
    running: int
    """Files that are worked on."""
    waiting: int
    deferred: int
    failed: int
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, answer: Document) -> SpoolerStatus:
        """Read the answer of `/status`."""
        queue, registry = answer["queue"], answer["registry"]
        return cls(
            version=answer["version"].text(),
            is_ready=answer["ready"].value is True,
            registry=registry["address"].text(),
            registry_is_up=registry["up"].value is True,
            pull_host=registry["pull_host"].text_or_none(),
            running=queue["running"].count(),
            waiting=queue["waiting"].count(),
            deferred=queue["deferred"].count(),
            failed=answer["spool"]["failed_files"].count(),
            document=answer.fields(),
        )
