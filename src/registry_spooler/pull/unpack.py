"""`--unpack`: the bytes of the file that an image of one layer was made from.

An image config says what the layer decompresses to, and that is checked. An artifact's layer (ORAS, Helm) is the file
itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from registry_spooler import mediatype
from registry_spooler.archive.compression import Compression
from registry_spooler.archive.inflation import Inflater
from registry_spooler.digest import Digest
from registry_spooler.manifest import Descriptor, Manifest, load_object
from registry_spooler.pull.errors import NotOneFile, WrongContent
from registry_spooler.reference import Reference
from registry_spooler.threads import in_thread

if TYPE_CHECKING:
    from typing_extensions import Buffer

PIECE_BYTES: Final = 1 << 20


class Writes(Protocol):
    """What an unpacked file is written to."""

    async def write(self, piece: Buffer) -> None:
        """Write all of a piece."""


def only_layer(reference: Reference, manifest: Manifest) -> Descriptor:
    """The one layer; NotOneFile when there are more, or none."""
    if len(manifest.layers) != 1:
        raise NotOneFile(str(reference), len(manifest.layers))
    return manifest.layers[0]


def only_diff_id(config: bytes) -> Digest | None:
    """What the one layer decompresses to, if the image config says it."""
    rootfs: Any = load_object(config, where="image config").get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(listed, list) or len(listed) != 1:
        return None
    try:
        return Digest.parse(str(listed[0]))
    except ValueError:
        return None


@dataclass(slots=True)
class Unpacking:
    """Takes a layer's bytes piece by piece and writes what they decompress to; `finish` checks the whole."""

    reference: Reference
    output: Writes
    compression: Compression
    diff_id: Digest | None
    _inflater: Inflater | None = field(init=False)
    _hash: Any = field(init=False)

    def __post_init__(self) -> None:
        is_plain = self.compression is Compression.NONE
        self._inflater = None if is_plain else Inflater(self.compression, name=str(self.reference))
        self._hash = hashlib.new(self.diff_id.algorithm if self.diff_id is not None else "sha256")

    async def write(self, piece: Buffer) -> None:
        """Take the next piece of the layer as the registry holds it."""
        while True:
            plain = await in_thread(self._inflate, piece)
            if not plain:
                return
            await self.output.write(plain)
            piece = b""
            if self._inflater is None or self._inflater.needs_input:
                return

    def finish(self) -> None:
        """Check what was written; ArchiveError or WrongContent when it is not what was pushed."""
        if self._inflater is not None:
            self._inflater.finish()
        if self.diff_id is not None and self._hash.hexdigest() != self.diff_id.hex:
            raise WrongContent(str(self.reference), f"it does not unpack to {self.diff_id}")

    def _inflate(self, piece: Buffer) -> Buffer:
        plain = piece if self._inflater is None else self._inflater.inflate(piece, PIECE_BYTES)
        self._hash.update(plain)
        return plain


def compression_of(layer: Descriptor, diff_id: Digest | None) -> Compression:
    """How the layer's bytes are to be undone: not at all in an artifact, or where the diff ID is their own digest."""
    if diff_id is None or diff_id == layer.digest:
        return Compression.NONE
    return Compression(mediatype.layer_compression(layer.media_type))
