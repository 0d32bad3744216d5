"""The push: an archive's images, or a raw file, into a registry, until it answers for every tag.

`Pusher.push_archive` reads top to bottom: open, receive what only comes by once, choose the images, deliver their
blobs, put the manifests, tag, confirm. Nothing is tagged before every blob of its image has been seen to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import anyio

from registry_spooler import mediatype
from registry_spooler.archive import (
    Compression,
    Expectation,
    FileSource,
    Source,
    StreamedArchive,
    file_blob,
    open_archive,
)
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError, TagNotConfirmed
from registry_spooler.manifest import Manifest
from registry_spooler.progress import Progress
from registry_spooler.push.deliver import deliver_indexed, deliver_streamed
from registry_spooler.push.delivery import Counts, Deliveries, Delivery
from registry_spooler.push.image import ImageConfig, raw_config, raw_manifest
from registry_spooler.push.known import KnownBlobs
from registry_spooler.push.need import Need
from registry_spooler.push.registry import Registry
from registry_spooler.push.stream import Guess, Sessions, guess_all, guess_blobs, guess_nothing
from registry_spooler.push.target import Claim, Target, Targeting, claim_freely, config_need
from registry_spooler.push.watched import watched
from registry_spooler.reference import Reference
from registry_spooler.result import ImageResult

PutManifest = Callable[[Reference, Manifest], Awaitable[Digest]]
"""Stores a manifest under its reference."""

LANES: Final = 4
"""Blobs from plain tars on their way at once, in all jobs together. More would not be faster, only hold more memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How to push, whatever is pushed."""

    compression: Compression = Compression.GZIP
    """For the plain layers of docker archives."""
    inflate: bool = False
    """Are compressed layers inflated on the way, to check their diff IDs and checksums?"""
    hashes: bool = False
    """Is every blob hashed while it is read? Otherwise it is wrong when the registry refuses it."""
    transfers: int = 2
    """Blobs of one archive on their way at once. Two keep two processors busy; more only hold more memory."""


@dataclass(frozen=True, slots=True)
class Pusher:
    """Pushes into one registry; shared by all jobs. Opens nothing itself."""

    registry: Registry
    known: KnownBlobs
    options: PushOptions = PushOptions()
    lanes: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(LANES))

    async def push_archive(
        self,
        source: Source,
        reference: Reference | None,
        progress: Progress,
        *,
        claim: Claim = claim_freely,
        before_tag: Callable[[], None] = lambda: None,
        commit_early: bool = False,
    ) -> tuple[ImageResult, ...]:
        """Push the image that `reference` means, or with None every image to where the archive says.

        `claim` is told, before anything of a bundle is sent, which repositories it is about, and may raise;
        `before_tag` may raise, to stop a push whose source has changed. `commit_early` makes a blob of every
        content-addressed member of a stream as soon as it is verified, so that a connection that breaks loses
        only the member it was sending. Raises ArchiveError, RegistryError, OSError.
        """
        sessions = Sessions(
            self.registry,
            progress,
            inflate=self.options.inflate,
            hashes=self.options.hashes,
            commit_early=commit_early,
        )
        deliveries = Deliveries(self.registry, self.known, progress)
        async with open_archive(source) as archive, aclosing(sessions):
            if isinstance(archive, StreamedArchive):
                await sessions.receive(archive, self._first_guess(reference, deliveries, archive))
            targets = await Targeting(
                archive=archive,
                registry=self.registry,
                deliveries=deliveries,
                compression=self.options.compression,
                kinds=sessions.kinds,
            ).choose(reference, claim)
            if isinstance(archive, StreamedArchive):
                await deliver_streamed(targets, source, archive, sessions)
            else:
                await deliver_indexed(
                    targets,
                    archive,
                    progress,
                    self.lanes,
                    transfers=self.options.transfers,
                    inflate=self.options.inflate,
                    hashes=self.options.hashes,
                )
            before_tag()
            return tuple([await self._publish(target) for target in targets])

    async def push_file(
        self,
        source: FileSource,
        reference: Reference,
        progress: Progress,
        *,
        before_tag: Callable[[], None] = lambda: None,
    ) -> ImageResult:
        """Push a raw file as an image of one gzip layer that holds the file's bytes."""
        delivery = Delivery(self.registry, reference.repository, self.known, progress)
        measured = await self.registry.put_blob(reference.repository, watched(file_blob(source), progress), progress)
        assert measured.diff_id is not None
        expect = Expectation(digest=measured.digest, size=measured.size)
        layer = await delivery.sent(Need(member=None, expect=expect, media_type=mediatype.RAW_GZIP), measured)
        config = ImageConfig.parse(raw_config(measured.diff_id), where="config")
        await delivery.send_content(config_need(config), config.content)
        manifest = raw_manifest(config.descriptor, layer, _title(source.name))
        before_tag()
        await self._tag(reference, manifest, self.registry.put_manifest)
        return _raw_result(reference, manifest, delivery.counts)

    async def receive_blobs(self, source: Source, repository: str, progress: Progress) -> Counts:
        """Store every content-addressed member of a stream as a blob, each as soon as it is verified; tag nothing."""
        delivery = Delivery(self.registry, repository, self.known, progress)
        sessions = Sessions(self.registry, progress, inflate=self.options.inflate, commit_early=True)
        async with open_archive(source) as archive, aclosing(sessions):
            if not isinstance(archive, StreamedArchive):
                raise ArchiveError("blobs are received from a stream, not from a file")
            await sessions.receive(archive, guess_blobs(delivery))
        return delivery.counts

    def _first_guess(self, reference: Reference | None, deliveries: Deliveries, archive: StreamedArchive) -> Guess:
        if reference is None:
            return guess_nothing
        return guess_all(deliveries.to(reference), self.options.compression, rereadable=archive.rereadable)

    async def _publish(self, target: Target) -> ImageResult:
        """Put the manifests of an image whose blobs are all there, the tag last."""
        if isinstance(target.origin, ImageConfig):
            need = config_need(target.origin)
            if await target.delivery.find(need) is None:
                await target.delivery.send_content(need, target.origin.content)
        for child in target.children:
            await self.registry.put_manifest(Reference(target.repository, None, child.digest), child)
        for tag, companion in target.companions.items():
            await self._tag(Reference(target.repository, tag), companion, self.registry.put_companion)
        root = target.manifest()
        await self._tag(target.reference, root, self.registry.put_manifest)
        return target.result(root)

    async def _tag(self, reference: Reference, manifest: Manifest, put: PutManifest) -> None:
        """Put the manifest under its tag, and see that the registry answers with it."""
        await put(reference, manifest)
        answer = await self.registry.head_manifest(reference)
        if answer is None or answer.digest != manifest.digest:
            raise TagNotConfirmed(str(reference), manifest.digest, answer.digest if answer is not None else None)


def _title(name: str) -> str:
    """A file name that an annotation can hold: relative, with no folder in it, in Unicode."""
    return name.replace("\\", "/").rpartition("/")[2].encode("utf-8", "backslashreplace").decode()


def _raw_result(reference: Reference, manifest: Manifest, counts: Counts) -> ImageResult:
    return ImageResult(
        reference=reference,
        digest=manifest.digest,
        media_type=manifest.media_type,
        size_bytes=manifest.size + sum(blob.size for blob in manifest.blobs),
        platforms=(),
        blobs_uploaded=counts.uploaded,
        blobs_existing=counts.existing,
        blobs_mounted=counts.mounted,
        uploaded_bytes=counts.uploaded_bytes,
    )
