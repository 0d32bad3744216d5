"""The push: an archive's images, or a raw file, into a registry, until it answers for every tag.

`Pusher.push_archive` reads top to bottom: open, receive what only comes by once, choose the images, deliver their
blobs, put the manifests, tag, confirm. Nothing is tagged before every blob of its image has been seen to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, repeat
from typing import Final

import anyio

from registry_spooler.aio import task_group
from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import Expectation, MemberOpener, file_blob
from registry_spooler.archive.opening import IndexedArchive, open_archive
from registry_spooler.archive.source import FileSource, Source
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar_header import Member
from registry_spooler.errors import ArchiveError, TagNotConfirmed, UploadLost
from registry_spooler.oci import mediatype
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.push.blob_spec import BlobSpec, Registry
from registry_spooler.push.blobs import Counts, RepositoryUploader, RepositoryUploaders, watched
from registry_spooler.push.early_uploads import Guess, Sessions, guess_all, guess_blobs, guess_nothing, guess_wanted
from registry_spooler.push.image_push import ImagePush, ImagePushes, config_need
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.plan import raw_manifest

PASSES_MAX: Final = 4
"""Further readings of one stream, before the push is given up for now: each is what a broken connection cost."""


async def deliver_indexed(
    targets: Sequence[ImagePush],
    archive: IndexedArchive,
    progress: Progress,
    lanes: anyio.Semaphore,
    *,
    transfers: int,
    inflate: bool,
    hashes: bool,
) -> None:
    """Send what the registry lacks, largest first, `transfers` blobs at once.

    `lanes` bounds how many there are in all pushes of the process, and with that their memory. The images come one
    after another: the second then finds what the first brought.
    """
    for target in targets:
        needs = sorted(
            dict.fromkeys(need for need in target.needs if need.foreign is None), key=lambda need: -need.size
        )
        queue = iter(needs)

        async def work(delivery: RepositoryUploader, queue: Iterator[BlobSpec]) -> None:
            for need in queue:
                async with lanes:
                    await _deliver_one(need, delivery, archive, progress, inflate=inflate, hashes=hashes)

        async with task_group() as tasks:
            for _ in range(min(len(needs), transfers)):
                tasks.start_soon(work, target.delivery, queue)


async def _deliver_one(
    need: BlobSpec,
    delivery: RepositoryUploader,
    archive: IndexedArchive,
    progress: Progress,
    *,
    inflate: bool,
    hashes: bool,
) -> None:
    if await delivery.find(need) is not None:
        progress.bytes_done += need.size
        return
    if need.member is None:
        raise archive.missing(f"the blob {need.likely_digest}")
    opener = _opener(need, need.member, archive, inflate=inflate, hashes=hashes)
    await delivery.send(need, watched(opener, progress))


def _opener(need: BlobSpec, member: Member, archive: IndexedArchive, *, inflate: bool, hashes: bool) -> MemberOpener:
    """The blob, hashed while it is read; or, when nobody asks for more than digests, by the registry alone.

    A registry takes nothing under a digest that does not fit. What it has refused is opened again, and hashed then, so
    that the error says what is wrong. Small blobs are always hashed: they may go in one PUT, and many registries
    refuse that for reasons of their own.
    """
    blob = partial(archive.blob, member, compression=need.compression, expect=need.expect, inflate=inflate)
    if inflate or hashes or member.size <= PIECE_BYTES:
        return blob()
    openers = chain([blob(hashes=False)], repeat(blob()))
    return lambda: next(openers)()


async def deliver_streamed(
    targets: Sequence[ImagePush], source: Source, archive: StreamedArchive, sessions: Sessions
) -> None:
    """Make blobs of what the sessions received, and take what is still lacking from further passes.

    A pass that guessed right and lost nothing leaves nothing lacking, so that usually there is no second one.
    """
    for _ in range(PASSES_MAX):
        lacking = [item for target in targets for item in await _settle(target, archive, sessions)]
        if not lacking:
            return
        if not archive.rereadable:
            raise _cannot_send(lacking, sessions)
        # The first repository that lacks a member gets it; the others mount it from there.
        wanted = {need.member: (delivery, need) for delivery, need in reversed(lacking) if need.member is not None}
        async with open_archive(source) as again:
            assert isinstance(again, StreamedArchive)
            await sessions.receive(again, guess_wanted(wanted), keeps_documents=False)
    raise UploadLost(targets[0].repository, f"{len(lacking)} of its blobs were lost {PASSES_MAX} times")


def _cannot_send(
    lacking: Sequence[tuple[RepositoryUploader, BlobSpec]], sessions: Sessions
) -> UploadLost | ArchiveError:
    """Why a pipe ends here: an upload was lost, which another try may not lose, or the first pass guessed wrong."""
    for _, need in lacking:
        if need.member is not None and need.member not in sessions.lost:
            return ArchiveError(
                "what it is shows only at the end of the archive, and a pipe cannot be read again; push the archive as "
                "a file",
                where=need.member.path,
            )
    return UploadLost(lacking[0][0].repository, "the archive came through a pipe and cannot be read again")


async def _settle(
    target: ImagePush, archive: StreamedArchive, sessions: Sessions
) -> list[tuple[RepositoryUploader, BlobSpec]]:
    """Commit, find or send from memory what the target needs; what is left is lacking."""
    delivery = target.delivery
    lacking = []
    for need in dict.fromkeys(need for need in target.needs if need.foreign is None):
        if delivery.delivered(need) or await sessions.commit(need, delivery) or await delivery.find(need):
            continue
        content = await archive.content(need.expect.digest) if need.expect.digest is not None else None
        if content is not None:
            await delivery.send_content(need, content)
        elif need.member is None:
            raise archive.missing(f"the blob {need.likely_digest}")
        else:
            lacking.append((delivery, need))
    return lacking


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
        before_tag: Callable[[], None] = lambda: None,
        commit_early: bool = False,
    ) -> tuple[ImageResult, ...]:
        """Push the image that `reference` means, or with None every image to where the archive says.

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
        deliveries = RepositoryUploaders(self.registry, self.known, progress)
        async with open_archive(source) as archive, aclosing(sessions):
            if isinstance(archive, StreamedArchive):
                await sessions.receive(archive, self._first_guess(reference, deliveries, archive))
            targets = await ImagePushes(
                archive=archive,
                registry=self.registry,
                deliveries=deliveries,
                compression=self.options.compression,
                kinds=sessions.kinds,
            ).choose(reference)
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
        delivery = RepositoryUploader(self.registry, reference.repository, self.known, progress)
        measured = await self.registry.put_blob(reference.repository, watched(file_blob(source), progress), progress)
        assert measured.diff_id is not None
        expect = Expectation(digest=measured.digest, size=measured.size)
        layer = await delivery.sent(BlobSpec(member=None, expect=expect, media_type=mediatype.RAW_GZIP), measured)
        config = ImageConfig.of_file(measured.diff_id)
        await delivery.send_content(config_need(config), config.content)
        manifest = raw_manifest(config.descriptor, layer, _title(source.name))
        before_tag()
        await self._tag(reference, manifest, self.registry.put_manifest)
        result = _raw_result(reference, manifest, delivery.counts)
        return replace(result, pull_reference=self._pull_reference(reference, manifest.digest))

    async def receive_blobs(self, source: Source, repository: str, progress: Progress) -> Counts:
        """Store every content-addressed member of a stream as a blob, each as soon as it is verified; tag nothing."""
        delivery = RepositoryUploader(self.registry, repository, self.known, progress)
        sessions = Sessions(self.registry, progress, inflate=self.options.inflate, commit_early=True)
        async with open_archive(source) as archive, aclosing(sessions):
            if not isinstance(archive, StreamedArchive):
                raise ArchiveError("blobs are received from a stream, not from a file")
            await sessions.receive(archive, guess_blobs(delivery))
        return delivery.counts

    def _first_guess(
        self, reference: Reference | None, deliveries: RepositoryUploaders, archive: StreamedArchive
    ) -> Guess:
        if reference is None:
            return guess_nothing
        return guess_all(deliveries.to(reference), self.options.compression, rereadable=archive.rereadable)

    async def _publish(self, target: ImagePush) -> ImageResult:
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
        return replace(target.result(root), pull_reference=self._pull_reference(target.reference, root.digest))

    def _pull_reference(self, reference: Reference, digest: Digest) -> str:
        host = self.registry.pull_host
        return f"{host}/{reference.repository}:{reference.tag}@{digest}" if host else ""

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
