"""Getting the blobs of chosen images into a repository: found there, mounted from another, or sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import MemberOpener
from registry_spooler.oci.blob import BlobOpener, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor
from registry_spooler.progress import BlobCounts, Progress
from registry_spooler.push.blob_spec import BlobSpec, Registry
from registry_spooler.push.layer_cache import KnownBlobs, KnownLayer


def counted(opener: MemberOpener, progress: Progress) -> BlobOpener:
    """Count the blob's bytes into `progress` while it is read; opening it again takes back what was done before."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        progress.bytes_done += count
        progress.bytes_read += count

    @asynccontextmanager
    async def opened() -> AsyncIterator[BlobReader]:
        nonlocal done
        progress.bytes_done -= done
        done = 0
        async with opener() as reader:
            reader.on_read = add
            yield reader

    return opened


@dataclass(frozen=True, slots=True)
class _Located:
    """A blob that the repository holds. `size` is in bytes."""

    digest: Digest
    size: int
    is_mounted: bool = False


class RepositoryUploader:
    """The blobs of one image, in one repository, for one push.

    It remembers each blob it has delivered, so that one which several manifests name is asked for once.
    """

    def __init__(self, registry: Registry, repository: str, known: KnownBlobs, progress: Progress) -> None:
        self.repository = repository
        self.counts = BlobCounts()
        """For the receipt."""
        self.delivered: dict[BlobSpec, Descriptor] = {}
        """The blobs that the repository is known to hold."""
        self._registry = registry
        self._known = known
        self._progress = progress
        self._located: dict[Digest, _Located] = {}
        self._uploaded: set[Digest] = set()

    async def holds(self, spec: BlobSpec) -> bool:
        """Return whether the registry has the blob, in this repository or where it can be mounted from."""
        return spec in self.delivered or await self._locate(spec) is not None

    async def find(self, spec: BlobSpec) -> Descriptor | None:
        """Return the blob, or None if neither this push nor an earlier one has brought it here."""
        if spec in self.delivered:
            return self.delivered[spec]
        located = await self._locate(spec)
        if located is None:
            return None
        if located.digest not in self._uploaded:  # sent before it was known which blob of the image it is
            self._count_found(located)
        return self._deliver(spec, located.digest, located.size)

    async def _locate(self, spec: BlobSpec) -> _Located | None:
        digest = spec.likely_digest
        elsewhere = self._known.repository(digest) if digest is not None else None
        if digest is None and (diff_id := spec.likely_diff_id) is not None:
            layer = await self._known.layer(diff_id, spec.compression.value)
            digest, elsewhere = (layer.digest, layer.repository) if layer is not None else (None, None)
        if digest is None:
            return None
        if digest not in self._located and (located := await self._ask(digest, elsewhere)) is not None:
            self._located[digest] = located
        found = self._located.get(digest)
        if found is not None and spec.expect.size not in (None, found.size):
            return None  # the manifest or the registry is wrong about its size: reading the blob tells which
        return found

    async def _ask(self, digest: Digest, elsewhere: str | None) -> _Located | None:
        if (size := await self._registry.blob_exists(self.repository, digest)) is not None:
            return _Located(digest, size)
        if elsewhere is None or elsewhere == self.repository:
            return None
        if not await self._registry.mount_blob(self.repository, digest, elsewhere):
            return None
        size = await self._registry.blob_exists(self.repository, digest)
        return _Located(digest, size, is_mounted=True) if size is not None else None

    async def send(self, spec: BlobSpec, open_reader: BlobOpener) -> Descriptor:
        """Send the blob from a source that can be read again."""
        return await self.sent(spec, await self._registry.put_blob(self.repository, open_reader, self._progress))

    async def send_content(self, spec: BlobSpec, content: bytes) -> Descriptor:
        """Send a blob that is in memory, such as a config."""
        digest = await self._registry.put_bytes(self.repository, content, self._progress)
        return await self.sent(spec, Measured(digest=digest, size=len(content)))

    async def sent(self, spec: BlobSpec, measured: Measured) -> Descriptor:
        """Count and remember a blob that has just been uploaded."""
        self._uploaded.add(measured.digest)
        self._located[measured.digest] = _Located(measured.digest, measured.size)
        for counts in (self.counts, self._progress):
            counts.blobs_uploaded += 1
            counts.uploaded_bytes += measured.size
            if measured.sent_bytes is not None:
                counts.rebuilt_layers += 1
                counts.saved_bytes += measured.size - measured.sent_bytes
        diff_id = spec.expect.diff_id
        if spec.compression is not Compression.NONE and diff_id is not None:
            layer = KnownLayer(digest=measured.digest, size=measured.size, repository=self.repository)
            await self._known.remember_layer(diff_id, spec.compression.value, layer)
        return self._deliver(spec, measured.digest, measured.size)

    def _count_found(self, located: _Located) -> None:
        self._progress.bytes_skipped += located.size
        for counts in (self.counts, self._progress):
            counts.blobs_mounted += located.is_mounted
            counts.blobs_existing += not located.is_mounted

    def _deliver(self, spec: BlobSpec, digest: Digest, size: int) -> Descriptor:
        self._known.seen(digest, self.repository)
        media_type = spec.media_type
        if not media_type and spec.compression is not Compression.NONE:
            media_type = spec.compression.layer_media_type
        self.delivered[spec] = Descriptor(media_type=media_type, digest=digest, size=size)
        return self.delivered[spec]
