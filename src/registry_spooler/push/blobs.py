"""Getting the blobs of chosen images into a repository: found there, mounted from another, or sent.

A `RepositoryUploader` lives as long as one push. It remembers what it has seen to, so that a blob that several
manifests name is asked for once, and it keeps the counts for the receipt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import MemberOpener, MemberReader
from registry_spooler.oci.blob import BlobOpener, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.push.blob_spec import BlobSpec, Registry, UploadSink
from registry_spooler.push.layer_cache import KnownBlobs, KnownLayer

if TYPE_CHECKING:
    from typing_extensions import Buffer


class WatchedReader:
    """A `BlobReader` that calls `advanced` after every read."""

    def __init__(self, reader: MemberReader, advanced: Callable[[], None]) -> None:
        self._reader = reader
        self._advanced = advanced

    @property
    def size(self) -> int | None:
        """See `BlobReader.size`."""
        return self._reader.size

    @property
    def rewindable(self) -> bool:
        """See `BlobReader.rewindable`."""
        return self._reader.rewindable

    @property
    def measured(self) -> Measured:
        """See `BlobReader.measured`."""
        return self._reader.measured

    async def read(self) -> Buffer:
        """See `BlobReader.read`."""
        piece = await self._reader.read()
        self._advanced()
        return piece

    async def rewind(self, offset: int) -> None:
        """See `BlobReader.rewind`."""
        await self._reader.rewind(offset)


def watched(opener: MemberOpener, progress: Progress) -> BlobOpener:
    """The same blob, counted into `progress`; when it is opened again, what was read before counts no longer."""
    counted = 0

    @asynccontextmanager
    async def opened() -> AsyncIterator[BlobReader]:
        nonlocal counted
        progress.bytes_done -= counted
        counted = 0
        async with opener() as reader:

            def advanced() -> None:
                nonlocal counted
                progress.bytes_done += reader.consumed - counted
                progress.bytes_read += reader.consumed - counted
                counted = reader.consumed

            yield WatchedReader(reader, advanced)

    return opened


@dataclass(slots=True)
class Counts:
    """What became of one image's blobs. `uploaded_bytes` is their size on the wire."""

    uploaded: int = 0
    existing: int = 0
    mounted: int = 0
    uploaded_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Located:
    """A blob that the repository holds. `size` is in bytes."""

    digest: Digest
    size: int
    is_mounted: bool


class RepositoryUploader:
    """The blobs of one image, in one repository, for one push."""

    def __init__(self, registry: Registry, repository: str, known: KnownBlobs, progress: Progress) -> None:
        self.repository = repository
        self.counts = Counts()
        self._registry = registry
        self._known = known
        self._progress = progress
        self._located: dict[Digest, _Located] = {}
        self._uploaded: set[Digest] = set()
        self._delivered: dict[BlobSpec, Descriptor] = {}

    def delivered(self, need: BlobSpec) -> Descriptor | None:
        """The blob, when this delivery has already seen to it."""
        return self._delivered.get(need)

    async def holds(self, need: BlobSpec) -> bool:
        """Does the registry have the blob, in this repository or where it can be mounted from?"""
        return need in self._delivered or await self._locate(need) is not None

    async def find(self, need: BlobSpec) -> Descriptor | None:
        """The blob, when this delivery or an earlier push has brought it here."""
        if need in self._delivered:
            return self._delivered[need]
        located = await self._locate(need)
        if located is None:
            return None
        if located.digest not in self._uploaded:  # sent before anyone knew which need it meets
            self._count_found(located)
        return self._settle(need, located.digest, located.size)

    async def _locate(self, need: BlobSpec) -> _Located | None:
        digest = need.likely_digest
        elsewhere = self._known.repository(digest) if digest is not None else None
        if digest is None and (diff_id := need.likely_diff_id) is not None:
            layer = await self._known.layer(diff_id, need.compression.value)
            digest, elsewhere = (layer.digest, layer.repository) if layer is not None else (None, None)
        if digest is None:
            return None
        if digest not in self._located and (located := await self._ask(digest, elsewhere)) is not None:
            self._located[digest] = located
        found = self._located.get(digest)
        if found is not None and need.expect.size not in (None, found.size):
            return None  # the manifest is wrong about its size, or the registry is: reading it tells
        return found

    async def _ask(self, digest: Digest, elsewhere: str | None) -> _Located | None:
        size = await self._registry.blob_exists(self.repository, digest)
        if size is not None:
            return _Located(digest, size, is_mounted=False)
        if elsewhere is None or elsewhere == self.repository:
            return None
        if not await self._registry.mount_blob(self.repository, digest, elsewhere):
            return None
        size = await self._registry.blob_exists(self.repository, digest)
        return _Located(digest, size, is_mounted=True) if size is not None else None

    async def send(self, need: BlobSpec, open_reader: BlobOpener) -> Descriptor:
        """Send the blob from a source that can be read again."""
        measured = await self._registry.put_blob(self.repository, open_reader, self._progress)
        return await self.sent(need, measured)

    async def send_content(self, need: BlobSpec, content: bytes) -> Descriptor:
        """Send a blob that is at hand, a config say."""
        digest = await self._registry.put_bytes(self.repository, content, self._progress)
        return await self.sent(need, Measured(digest=digest, size=len(content)))

    async def commit(self, need: BlobSpec, measured: Measured, upload: UploadSink) -> Descriptor:
        """Make a blob of what an open session received."""
        await upload.commit(measured.digest)
        return await self.sent(need, measured)

    async def sent(self, need: BlobSpec, measured: Measured) -> Descriptor:
        """Take note of a blob that has just been uploaded."""
        self._uploaded.add(measured.digest)
        self._located[measured.digest] = _Located(measured.digest, measured.size, is_mounted=False)
        self.counts.uploaded += 1
        self.counts.uploaded_bytes += measured.size
        self._progress.blobs_uploaded += 1
        self._progress.uploaded_bytes += measured.size
        diff_id = need.expect.diff_id
        if need.compression is not Compression.NONE and diff_id is not None:
            layer = KnownLayer(digest=measured.digest, size=measured.size, repository=self.repository)
            await self._known.remember_layer(diff_id, need.compression.value, layer)
        return self._settle(need, measured.digest, measured.size)

    def _count_found(self, located: _Located) -> None:
        self._progress.bytes_skipped += located.size
        if located.is_mounted:
            self.counts.mounted += 1
            self._progress.blobs_mounted += 1
        else:
            self.counts.existing += 1
            self._progress.blobs_existing += 1

    def _settle(self, need: BlobSpec, digest: Digest, size: int) -> Descriptor:
        self._known.seen(digest, self.repository)
        media_type = need.media_type
        if not media_type and need.compression is not Compression.NONE:
            media_type = need.compression.layer_media_type
        self._delivered[need] = Descriptor(media_type=media_type, digest=digest, size=size)
        return self._delivered[need]


class RepositoryUploaders:
    """The deliveries of one push: one for each tag, since each has a count of its own."""

    def __init__(self, registry: Registry, known: KnownBlobs, progress: Progress) -> None:
        self._registry = registry
        self._known = known
        self._progress = progress
        self._by_reference: dict[Reference, RepositoryUploader] = {}

    def to(self, reference: Reference) -> RepositoryUploader:
        """The delivery for this tag, the same one whenever it is asked for."""
        if reference not in self._by_reference:
            delivery = RepositoryUploader(self._registry, reference.repository, self._known, self._progress)
            self._by_reference[reference] = delivery
        return self._by_reference[reference]
