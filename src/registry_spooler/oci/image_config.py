"""Image configs: what is read of one, and the config of an image that is made of a raw file.

https://github.com/opencontainers/image-spec/blob/main/config.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from registry_spooler.errors import ArchiveError
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Platform, load_object


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """An image config with the bytes it was read from."""

    content: bytes = field(repr=False)
    digest: Digest
    """What docker calls the image ID."""
    platform: Platform | None
    diff_ids: tuple[Digest, ...]
    """The digests of the uncompressed layers, lowest layer first; attestations and artifacts have none."""
    steps: tuple[str, ...] = ()
    """What made each of these layers, as the history tells it; empty when it does not tell of just as many."""
    created: str = ""
    """When the image was made (RFC 3339), as it says itself."""

    @property
    def descriptor(self) -> Descriptor:
        """Return what points to the config."""
        return Descriptor(media_type=mediatype.OCI_CONFIG, digest=self.digest, size=len(self.content))

    @classmethod
    def parse(cls, content: bytes, *, where: str = "image config") -> ImageConfig:
        """Read a config; ArchiveError when it is not JSON or its diff IDs are not a list of digests."""
        document = load_object(content, where=where)
        return cls(
            content=content,
            digest=Digest.of(content),
            platform=Platform.read(document),
            diff_ids=(diff_ids := _read_diff_ids(document, where=where)),
            steps=_read_steps(document, len(diff_ids)),
            created=str(document.get("created") or ""),
        )

    @classmethod
    def of_file(cls, diff_id: Digest) -> ImageConfig:
        """Return the config of an image whose one layer is a raw file.

        The platform is only there because tools ask every image for one; nothing in the image runs.
        """
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
        }
        return cls.parse(orjson.dumps(document))


def _read_diff_ids(document: dict[str, Any], *, where: str) -> tuple[Digest, ...]:
    rootfs = document.get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise ArchiveError("its rootfs.diff_ids is not a list", where=where)
    try:
        return tuple(Digest.parse(str(diff_id)) for diff_id in listed)
    except ValueError as exc:
        raise ArchiveError("one of its rootfs.diff_ids is not a digest", where=where) from exc


def _read_steps(document: dict[str, Any], count: int) -> tuple[str, ...]:
    """Return the `created_by` of each layer; https://github.com/opencontainers/image-spec/blob/main/config.md#properties."""
    history = document.get("history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        return ()
    steps = tuple(str(entry.get("created_by") or "") for entry in history if not entry.get("empty_layer"))
    return steps if len(steps) == count else ()
