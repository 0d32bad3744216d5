"""A pull, top to bottom: find the image, list what goes into the archive, then pass the blobs through.

Nothing is written before all metadata has been read, so that a wrong name or platform leaves no trace. Every
byte is verified on its way; when something is wrong, the archive stays without its end marker, and
whoever reads it notices.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry_spooler.errors import NotFound
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.layout_writer import TAR_END, tar_header, tar_padding
from registry_spooler.oci.manifest import MANIFEST_MAX_BYTES, Descriptor, Manifest, Platform
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.image_tree import ReferrerSearch, image_for, read_tree
from registry_spooler.pull.output import IncompleteImage
from registry_spooler.pull.pulled_archives import ArchiveEntry, archive_bytes, docker_archive, image_config, oci_archive

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from registry_spooler.progress import Progress
    from registry_spooler.pull.output import Output
    from registry_spooler.registry.registry_client import RegistryClient


class Format(enum.Enum):
    """What a pull writes: the values of `--format`."""

    DOCKER = "docker"
    OCI = "oci"


@dataclass(frozen=True, slots=True, kw_only=True)
class Puller:
    """Pulls one image. Errors are SpoolerError, or OutputClosed when nobody reads any more."""

    client: RegistryClient
    reference: Reference
    output: Output
    progress: Progress
    warn: Callable[[str], None] = lambda _: None
    """Told, in a sentence each, what the registry lacks of an image that is pulled all the same."""

    async def archive(self, archive_format: Format, wanted: Platform | None, *, referrers: bool = True) -> None:
        """Write an archive.

        An OCI archive of an index holds all its platforms, unless one is wanted. `referrers`: it also holds what speaks
        of the image and of its platforms, signatures and SBOMs.
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
        # Decompression has libraries of its own, which no other command needs to load.
        from registry_spooler.pull.pulled_archives import Unpacking, compression_of, only_diff_id, only_layer

        manifest = await self._image(await self.client.get_manifest(self.reference), wanted)
        layer = only_layer(self.reference, manifest)
        config = manifest.config
        is_image = config is not None and config.media_type in mediatype.IMAGE_CONFIGS
        diff_id = only_diff_id(await self._config(config)) if is_image and config is not None else None
        unpacking = Unpacking(self.reference, self.output, compression_of(layer, diff_id), diff_id)
        self.progress.bytes_total = layer.size
        async with self._open(layer.digest, layer.size) as pieces:
            async for piece in pieces:
                await unpacking.write(piece)
                self._count(piece)
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
        """The foreign layers that the registry does not hold; it need not."""
        foreign = {layer.digest for layer in layers if layer.is_foreign}
        return frozenset(
            [digest for digest in foreign if await self.client.blob_exists(self.reference.repository, digest) is None]
        )

    async def _write(self, entries: tuple[ArchiveEntry, ...]) -> None:
        self.progress.bytes_total = archive_bytes(entries)
        for entry in entries:
            await self._put(tar_header(entry.path, entry.size))
            if isinstance(entry.content, bytes):
                await self._put(entry.content)
            else:
                await self._pass(entry.content, entry.size)
            await self._put(tar_padding(entry.size))
        await self._put(TAR_END)

    async def _pass(self, digest: Digest, size: int) -> None:
        async with self._open(digest, size) as pieces:
            async for piece in pieces:
                await self._put(piece)

    async def _put(self, piece: Buffer) -> None:
        await self.output.write(piece)
        self._count(piece)

    def _count(self, piece: Buffer) -> None:
        self.progress.bytes_done += memoryview(piece).nbytes

    @asynccontextmanager
    async def _open(self, digest: Digest, size: int) -> AsyncGenerator[AsyncIterator[bytes]]:
        with self._complete(digest):
            async with self.client.open_blob(self.reference.repository, digest, size) as pieces:
                yield pieces

    @contextmanager
    def _complete(self, digest: Digest) -> Generator[None]:
        """Only the manifest may be absent for a user; a blob that it names is the registry's fault."""
        try:
            yield
        except NotFound as exc:
            raise IncompleteImage(str(self.reference), digest) from exc
