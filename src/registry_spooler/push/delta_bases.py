"""What a registry offers as the base of a delta: a layer of the last image, and its signature.

A signature is made once, while the layer is inflated, and kept by the layer's digest.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from registry_spooler.aio import in_thread, in_worker
from registry_spooler.archive.compression import Compression, Inflater, sniff
from registry_spooler.delta.base import LayerStep, layer_at
from registry_spooler.delta.signature import LAYER_MAX_BYTES, SIGNATURE_MAX_BYTES, SignatureBuilder
from registry_spooler.errors import ArchiveError, DeltaError, NotFound
from registry_spooler.folder import Folder
from registry_spooler.oci import mediatype
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import MANIFEST_MAX_BYTES, Descriptor, Manifest
from registry_spooler.oci.reference import Reference

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from registry_spooler.oci.digest import Digest
    from registry_spooler.registry.registry_client import RegistryClient

BASE_MIN_BYTES: Final = 256 << 10
"""A smaller layer is sent whole sooner than it is compared."""
TAGS_MAX: Final = 20
"""Of a repository without the tag: so many, the last by name, are asked when they were made."""
SIGNATURES: Final = Path(".state", "signatures")
"""In the spool directory."""
SIGNATURES_MAX: Final = 200
"""Kept on disk, of some 25 bytes for each file of a layer; the oldest go."""
_NAME: Final = re.compile(r"[a-z0-9]+-[0-9a-f]+\.signature|\.new-[0-9a-f]+")
_OUTPUT_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Base:
    """A layer that the registry has. `size` is that of the blob, in bytes; `signature` is encoded."""

    digest: Digest
    size: int
    signature: bytes


class PlainBytes:
    """Inflates a layer's blob, whatever its compression."""

    def __init__(self) -> None:
        self._inflater: Inflater | None = None
        self._is_plain = False
        self._made = 0

    def feed(self, piece: Buffer) -> Iterator[Buffer]:
        """Yield the plain bytes of the next piece; DeltaError when it cannot be inflated."""
        if self._inflater is None and not self._is_plain:
            compression = sniff(piece)
            self._is_plain = compression is Compression.NONE
            if not self._is_plain:
                self._inflater = _inflater(compression)
        if self._inflater is None:
            yield piece
            return
        try:
            yield from self._inflate(self._inflater, piece)
        except ArchiveError as exc:
            raise DeltaError(f"the base: {exc}") from exc

    def _inflate(self, inflater: Inflater, piece: Buffer) -> Iterator[Buffer]:
        """Yield few pieces, however small the members are: a head that is not complete is read again with each."""
        data: Buffer = piece
        made = bytearray()
        while output := inflater.inflate(data, _OUTPUT_BYTES):
            data = b""
            self._made += len(output)
            if self._made > LAYER_MAX_BYTES:
                raise DeltaError("the base is too large")
            made += output
            if len(made) >= _OUTPUT_BYTES:
                yield bytes(made)
                made.clear()
        if made:
            yield bytes(made)


def _inflater(compression: Compression) -> Inflater:
    if compression not in (Compression.GZIP, Compression.ZSTD):
        raise DeltaError(f"the base is compressed with {compression.value}")
    return Inflater(compression)


class SignatureStore:
    """Signatures by the digests of their layers, in a folder of the spool directory; None keeps none."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self.making = anyio.Lock()
        """Held while one is made: whoever wants the same one finds it afterwards."""

    def read(self, digest: Digest) -> bytes | None:
        """Return a signature, or None. Blocks."""
        if self._directory is None:
            return None
        try:
            with self._open(self._directory) as folder:
                return folder.read(_name(digest), SIGNATURE_MAX_BYTES)
        except OSError:
            return None

    def write(self, digest: Digest, signature: bytes) -> None:
        """Keep a signature. Blocks; an error of the disk is none of ours: it is made again."""
        if self._directory is None:
            return
        temporary = f".new-{secrets.token_hex(8)}"
        with contextlib.suppress(OSError), self._open(self._directory, make=True) as folder:
            _trim(folder)
            folder.create(temporary, signature, durable=False)
            folder.rename(temporary, folder, _name(digest))

    @staticmethod
    def _open(directory: Path, *, make: bool = False) -> Folder:
        """Open the folder, whose last two names are our own; NotAFolder when a link or anything else is there."""
        with (
            Folder.open(directory.parent.parent) as spool,
            spool.subfolder(directory.parent.name, make=make) as state,
        ):
            return state.subfolder(directory.name, make=make)


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}.signature"


def _trim(folder: Folder) -> None:
    names = [name for name in folder.names() if _NAME.fullmatch(name)]
    found = sorted(((folder.status(name).st_mtime, name) for name in names), reverse=True)
    for _, name in found[SIGNATURES_MAX:]:
        folder.remove(name, missing_ok=True)


async def find_base(
    client: RegistryClient, reference: Reference, step: LayerStep, store: SignatureStore
) -> Base | None:
    """Return the layer that was made by the same step, of the image under the tag or else of the newest.

    None when there is none that it would pay to compare with. Raises RegistryError, DeltaError.
    """
    layer = None
    async for manifest in _images(client, reference):
        layer = await _layer_of(client, reference.repository, manifest, step)
        if layer is not None:
            break
    if layer is None or layer.size < BASE_MIN_BYTES:
        return None
    signature = await in_thread(store.read, layer.digest)
    if signature is None:
        async with store.making:
            signature = await in_thread(store.read, layer.digest)
            if signature is None:
                signature = await _sign(client, reference.repository, layer)
                await in_thread(store.write, layer.digest, signature)
    return Base(layer.digest, layer.size, signature)


async def _images(client: RegistryClient, reference: Reference) -> AsyncIterator[Manifest]:
    """Yield what the tag points to; then the newest of the repository."""
    manifest = await _manifest(client, reference)
    if manifest is not None:
        yield manifest
    try:
        tags = sorted([tag async for tag in client.list_tags(reference.repository)])
    except NotFound:
        return
    newest: tuple[str, Manifest] | None = None
    for tag in tags[-TAGS_MAX:]:
        found = await _manifest(client, Reference(reference.repository, tag))
        config = await _config(client, reference.repository, found) if found is not None else None
        if found is not None and config is not None and (newest is None or config.created > newest[0]):
            newest = (config.created, found)
    if newest is not None:
        yield newest[1]


async def _manifest(client: RegistryClient, reference: Reference) -> Manifest | None:
    try:
        return await client.get_manifest(reference)
    except NotFound:
        return None


async def _config(client: RegistryClient, repository: str, manifest: Manifest) -> ImageConfig | None:
    descriptor = manifest.image_config
    if descriptor is None or descriptor.size > MANIFEST_MAX_BYTES:
        return None
    try:
        content = await client.get_bytes(repository, descriptor.digest, limit_bytes=MANIFEST_MAX_BYTES)
        return ImageConfig.parse(content)
    except (NotFound, ArchiveError):
        return None


async def _layer_of(client: RegistryClient, repository: str, manifest: Manifest, step: LayerStep) -> Descriptor | None:
    if manifest.is_index:
        fitting = [child for child in manifest.manifests if str(child.platform) == step.platform]
        found = await _manifest(client, Reference(repository, None, fitting[0].digest)) if fitting else None
        if found is None or found.is_index:
            return None
        manifest = found
    config = await _config(client, repository, manifest)
    layer = layer_at(step, manifest.layers, config.steps if config is not None else ())
    return layer if layer is not None and mediatype.is_image_layer(layer.media_type) else None


async def _sign(client: RegistryClient, repository: str, layer: Descriptor) -> bytes:
    builder, plain = SignatureBuilder(), PlainBytes()

    def feed(piece: bytes) -> None:
        for part in plain.feed(piece):
            builder.feed(part)

    async with client.open_blob(repository, layer.digest, layer.size) as pieces:
        async for piece in pieces:
            await in_worker(feed, piece)
    return await in_worker(lambda: builder.finish().encode())
