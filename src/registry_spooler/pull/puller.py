"""A pull, top to bottom: find the image, list what goes into the archive, then pass the blobs through.

Nothing is written before all metadata has been read, so that a wrong name or platform leaves no trace. Every
byte is verified on its way; when something is wrong, the archive gets no end marker, which tells its reader.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry_spooler.errors import NotFound
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.layout_writer import TAR_END, tar_header, tar_padding, tar_size
from registry_spooler.oci.manifest import MANIFEST_MAX_BYTES, Descriptor, Manifest, Platform
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.image_tree import ReferrerSearch, image_for, read_tree
from registry_spooler.pull.output import IncompleteImage
from registry_spooler.pull.pulled_archives import PulledFile, Unpacking, docker_archive, image_config, oci_archive

if TYPE_CHECKING:
    from registry_spooler.progress import Progress
    from registry_spooler.pull.output import Output
    from registry_spooler.registry.registry_client import RegistryClient


class Format(enum.Enum):
    """What a pull writes: the values of `--format`."""

    DOCKER = "docker"
    OCI = "oci"


@dataclass(frozen=True, slots=True, kw_only=True)
class Puller:
    """Pulls one image. Errors are SpoolerError, or OutputClosed when the reader has gone."""

    client: RegistryClient
    reference: Reference
    output: Output
    progress: Progress
    warn: Callable[[str], None] = lambda _: None
    """Called with a sentence for each part of the image that the registry lacks and that is left out."""

    async def archive(self, archive_format: Format, wanted: Platform | None, *, referrers: bool = True) -> None:
        """Write an archive.

        An OCI archive of an index holds all its platforms, unless one is wanted. With `referrers` it also holds
        signatures, SBOMs and the like, of the image and of its platforms.
        """
        root = await self.client.get_manifest(self.reference)
        if archive_format is Format.OCI:
            await self._oci(root if wanted is None else await self._image(root, wanted), referrers)
            return
        manifest = await self._image(root, wanted)
        config = await self._config(image_config(self.reference, manifest))
        absent = await self._absent(manifest.layers)
        await self._write(docker_archive(self.reference, manifest, config, absent=absent))

    async def file(self, wanted: Platform | None) -> None:
        """Write the file that the image was made from."""
        manifest = await self._image(await self.client.get_manifest(self.reference), wanted)
        config = manifest.image_config
        content = await self._config(config) if config is not None else None
        unpacking = Unpacking(self.reference, self.output, manifest, content)
        layer = unpacking.layer
        self.progress.bytes_total = layer.size
        async with self._open(layer.digest, layer.size) as pieces:
            async for piece in pieces:
                await unpacking.write(piece)
                self.progress.bytes_done += len(piece)
        unpacking.finish()

    async def _oci(self, root: Manifest, with_referrers: bool) -> None:
        tree = await read_tree(self.client, self.reference.repository, root)
        search = ReferrerSearch(self.client, self.reference.repository)
        referrers = await search.run(tree) if with_referrers else ()
        blobs = [blob for one in (tree, *(referrer.tree for referrer in referrers)) for blob in one.blobs]
        await self._write(oci_archive(self.reference, tree, referrers, absent=await self._absent(blobs)))
        for child in tree.missing:
            self.warn(f"the registry does not hold {child.platform or 'an image'} of it ({child.digest})")
        for sentence in search.warnings:
            self.warn(sentence)

    async def _image(self, root: Manifest, wanted: Platform | None) -> Manifest:
        return await image_for(self.client, self.reference, root, wanted)

    async def _config(self, config: Descriptor) -> bytes:
        with self._complete(config.digest):
            return await self.client.get_bytes(self.reference.repository, config.digest, limit_bytes=MANIFEST_MAX_BYTES)

    async def _absent(self, layers: Iterable[Descriptor]) -> frozenset[Digest]:
        """Return the foreign layers that the registry does not hold; it need not."""
        foreign = {layer.digest for layer in layers if layer.is_foreign}
        return frozenset(
            [digest for digest in foreign if await self.client.blob_exists(self.reference.repository, digest) is None]
        )

    async def _write(self, files: tuple[PulledFile, ...]) -> None:
        self.progress.bytes_total = tar_size((file.path, file.size) for file in files)
        for file in files:
            await self._put(tar_header(file.path, file.size))
            if isinstance(file.content, bytes):
                await self._put(file.content)
            else:
                async with self._open(file.content, file.size) as pieces:
                    async for piece in pieces:
                        await self._put(piece)
            await self._put(tar_padding(file.size))
        await self._put(TAR_END)

    async def _put(self, piece: bytes) -> None:
        await self.output.write(piece)
        self.progress.bytes_done += len(piece)

    @asynccontextmanager
    async def _open(self, digest: Digest, size: int) -> AsyncGenerator[AsyncIterator[bytes]]:
        with self._complete(digest):
            async with self.client.open_blob(self.reference.repository, digest, size) as pieces:
                yield pieces

    @contextmanager
    def _complete(self, digest: Digest) -> Generator[None]:
        """Translate NotFound: a blob that the manifest names should be there."""
        try:
            yield
        except NotFound as exc:
            raise IncompleteImage(str(self.reference), digest) from exc
