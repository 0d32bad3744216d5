"""The push: an archive's images, or a raw file, into a registry, until it answers for every tag.

`Pusher.push_archive` reads top to bottom: open, receive what only comes by once, choose the images, deliver their
blobs, put the manifests, tag, confirm. Nothing is tagged before every blob of its image is in the registry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Final

import anyio

from registry_spooler.aio import task_group
from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import Expectation, MemberOpener, MemberReader, file_blob
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
from registry_spooler.progress import BlobCounts, ImageResult, Progress
from registry_spooler.push.blob_spec import BlobSpec, Registry, config_spec
from registry_spooler.push.early_uploads import Sessions, guess_all, guess_blobs, guess_wanted
from registry_spooler.push.image_push import ImagePush, ImagePushes
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.plan import Plan, raw_manifest
from registry_spooler.push.uploader import RepositoryUploader, counted

PASSES_MAX: Final = 4
"""Further passes over one stream, each after a broken connection, before the push is given up for now."""
TRANSFERS_MAX: Final = 4
"""Blobs from plain tars sent at once, in all jobs together. More would not be faster, only use more memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """How to push, whatever is pushed."""

    compression: Compression = Compression.GZIP
    """For the plain layers of docker archives."""
    inflate: bool = False
    """Inflate compressed layers on the way, to check their diff IDs and checksums."""
    hashes: bool = False
    """Hash every blob while it is read. Otherwise the registry alone checks it."""
    transfers: int = 2
    """Blobs of one archive sent at once. Two keep two processors busy; more only use more memory."""
    repack: bool = False
    """Compress the layers anew that are compressed in the archive, which gives the image another digest."""


@dataclass(frozen=True, slots=True)
class Pusher:
    """Pushes into one registry; shared by all jobs. Opens nothing itself."""

    registry: Registry
    known: KnownBlobs
    options: PushOptions = PushOptions()
    transfers: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(TRANSFERS_MAX))
    """Limits the blobs sent at once in all pushes of the process, and with that their memory."""

    async def push_archive(
        self,
        source: Source,
        reference: Reference | None,
        progress: Progress,
        *,
        before_tag: Callable[[], None] = lambda: None,
        commit_early: bool = False,
    ) -> tuple[ImageResult, ...]:
        """Push the image that `reference` means, or with None every image to where the archive names it.

        `before_tag` may raise, to stop a push whose source has changed. `commit_early` makes a blob of every
        content-addressed member of a stream as soon as it is verified, so that a connection that breaks loses
        only the member it was sending. Raises ArchiveError, RegistryError, OSError.
        """

        @cache
        def uploader_for(reference: Reference) -> RepositoryUploader:
            # One for each tag, since each has counts of its own.
            return RepositoryUploader(self.registry, reference.repository, self.known, progress)

        options = self.options
        sessions = Sessions(
            self.registry, progress, inflate=options.inflate, hashes=options.hashes, commit_early=commit_early
        )
        async with open_archive(source) as archive, aclosing(sessions):
            if isinstance(archive, StreamedArchive):
                if options.repack:
                    raise ArchiveError("layers can only be compressed anew from a plain archive in a file")
                guess = guess_wanted({})  # which repository a bundle's member belongs to is known only at the end
                if reference is not None:
                    guess = guess_all(uploader_for(reference), options.compression, rereadable=archive.rereadable)
                await sessions.receive(archive, guess)
            images = await ImagePushes(
                archive=archive,
                registry=self.registry,
                uploader_for=uploader_for,
                compression=options.compression,
                repack=options.repack,
                kinds=sessions.kinds,
            ).choose(reference)
            for image in images:
                if (config := image.plan.config) is not None:
                    self.registry.announce(image.reference, config)
            if isinstance(archive, StreamedArchive):
                await _deliver_streamed(images, source, archive, sessions)
            else:
                await self._deliver_indexed(images, archive, progress)
            before_tag()
            return tuple([await self._publish(image) for image in images])

    async def push_file(
        self,
        source: FileSource,
        reference: Reference,
        progress: Progress,
        *,
        before_tag: Callable[[], None] = lambda: None,
    ) -> ImageResult:
        """Push a raw file as an image of one gzip layer that holds the file's bytes."""
        uploader = RepositoryUploader(self.registry, reference.repository, self.known, progress)
        measured = await self.registry.put_blob(reference.repository, counted(file_blob(source), progress), progress)
        assert measured.diff_id is not None
        expect = Expectation(digest=measured.digest, size=measured.size)
        layer = await uploader.sent(BlobSpec(member=None, expect=expect, media_type=mediatype.RAW_GZIP), measured)
        config = ImageConfig.of_file(measured.diff_id)
        await uploader.send_content(config_spec(config), config.content)
        plan = Plan(root=raw_manifest(config.descriptor, layer, _title(source.name)))
        before_tag()
        return await self._publish(ImagePush(reference=reference, uploader=uploader, plan=plan))

    async def receive_blobs(self, source: Source, repository: str, progress: Progress) -> BlobCounts:
        """Store every content-addressed member of a stream as a blob, each as soon as it is verified; tag nothing."""
        uploader = RepositoryUploader(self.registry, repository, self.known, progress)
        sessions = Sessions(self.registry, progress, inflate=self.options.inflate, commit_early=True)
        async with open_archive(source) as archive, aclosing(sessions):
            if not isinstance(archive, StreamedArchive):
                raise ArchiveError("blobs are received from a stream, not from a file")
            await sessions.receive(archive, guess_blobs(uploader))
        return uploader.counts

    async def _deliver_indexed(self, images: Sequence[ImagePush], archive: IndexedArchive, progress: Progress) -> None:
        """Send what the registry lacks, largest first; an image finds what the one before it sent."""
        for image in images:
            queue = iter(sorted(image.specs, key=lambda spec: -spec.size))

            async def work(uploader: RepositoryUploader, queue: Iterator[BlobSpec]) -> None:
                for spec in queue:
                    async with self.transfers:
                        await self._deliver_one(spec, uploader, archive, progress)

            async with task_group() as tasks:
                for _ in range(min(len(image.specs), self.options.transfers)):
                    tasks.start_soon(work, image.uploader, queue)

    async def _deliver_one(
        self, spec: BlobSpec, uploader: RepositoryUploader, archive: IndexedArchive, progress: Progress
    ) -> None:
        if await uploader.find(spec) is not None:
            progress.bytes_done += spec.size
            return
        if spec.member is None:
            raise archive.missing(f"the blob {spec.likely_digest}")
        await uploader.send(spec, counted(self._opener(spec, spec.member, archive), progress))

    def _opener(self, spec: BlobSpec, member: Member, archive: IndexedArchive) -> MemberOpener:
        """Open the blob hashed while it is read, or, when only digests are to be checked, by the registry alone.

        A registry takes nothing under a digest that does not fit. What it has refused is opened again, and hashed
        then, so that the error says what is wrong. Small blobs are always hashed: they may go in one PUT, and many
        registries refuse that for reasons of their own.
        """
        inflate = self.options.inflate
        codec = partial(archive.blob, compression=spec.compression, inside=spec.inside)
        blob = partial(codec, member, expect=spec.expect, inflate=inflate)
        if inflate or self.options.hashes or member.size <= PIECE_BYTES:
            return blob()
        hashes = False

        def open_blob() -> AbstractAsyncContextManager[MemberReader]:
            nonlocal hashes
            opener, hashes = blob(hashes=hashes), True
            return opener()

        return open_blob

    async def _publish(self, image: ImagePush) -> ImageResult:
        """Put the manifests of an image whose blobs are all there, the tag last."""
        plan, reference = await image.plan.complete(image.uploader), image.reference
        for child in image.children:
            await self.registry.put_manifest(Reference(reference.repository, None, child.digest), child)
        for tag, companion in image.companions.items():
            await self._tag(Reference(reference.repository, tag), companion, self.registry.put_companion)
        await self._tag(reference, plan.root, self.registry.put_manifest)
        host = self.registry.pull_host
        pull_reference = f"{host}/{reference.repository}:{reference.tag}@{plan.root.digest}" if host else ""
        return replace(image.result(plan), pull_reference=pull_reference)

    async def _tag(
        self, reference: Reference, manifest: Manifest, put: Callable[[Reference, Manifest], Awaitable[Digest]]
    ) -> None:
        """Put the manifest under its tag, and check that the registry answers with it."""
        await put(reference, manifest)
        answer = await self.registry.head_manifest(reference)
        if answer is None or answer.digest != manifest.digest:
            raise TagNotConfirmed(str(reference), manifest.digest, answer.digest if answer is not None else None)


async def _deliver_streamed(
    images: Sequence[ImagePush], source: Source, archive: StreamedArchive, sessions: Sessions
) -> None:
    """Make blobs of what the sessions received, and take what is still lacking from further passes.

    A pass that guessed right and lost nothing leaves nothing lacking, so that usually there is no second one.
    """
    for _ in range(PASSES_MAX):
        lacking = [item for image in images for item in await _settle(image, archive, sessions)]
        if not lacking:
            return
        if not archive.rereadable:
            raise _cannot_send(lacking, sessions)
        # The first repository that lacks a member gets it; the others mount it from there.
        wanted = {member: (uploader, spec) for uploader, spec, member in reversed(lacking)}
        async with open_archive(source) as again:
            assert isinstance(again, StreamedArchive)
            await sessions.receive(again, guess_wanted(wanted), keeps_documents=False)
    raise UploadLost(images[0].reference.repository, f"{len(lacking)} of its blobs were lost {PASSES_MAX} times")


_Lacking = tuple[RepositoryUploader, BlobSpec, Member]


def _cannot_send(lacking: Sequence[_Lacking], sessions: Sessions) -> UploadLost | ArchiveError:
    """Return why a pipe ends here: an upload was lost, which another try may not lose, or the first guess was wrong."""
    for _, _, member in lacking:
        if member not in sessions.lost:
            return ArchiveError(
                "what it is shows only at the end of the archive, and a pipe cannot be read again; push the archive as "
                "a file",
                where=member.path,
            )
    return UploadLost(lacking[0][0].repository, "the archive came through a pipe and cannot be read again")


async def _settle(image: ImagePush, archive: StreamedArchive, sessions: Sessions) -> list[_Lacking]:
    """Commit, find or send from memory the blobs of the image; return what is left to be sent."""
    uploader = image.uploader
    lacking = []
    for spec in image.specs:
        if spec in uploader.delivered or await sessions.commit(spec, uploader) or await uploader.find(spec):
            continue
        content = await archive.content(spec.expect.digest) if spec.expect.digest is not None else None
        if content is not None:
            await uploader.send_content(spec, content)
        elif spec.member is None:
            raise archive.missing(f"the blob {spec.likely_digest}")
        else:
            lacking.append((uploader, spec, spec.member))
    return lacking


def _title(name: str) -> str:
    """Return a file name that an annotation can hold: without folders, in Unicode."""
    return name.replace("\\", "/").rpartition("/")[2].encode("utf-8", "backslashreplace").decode()
