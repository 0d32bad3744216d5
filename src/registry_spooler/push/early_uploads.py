"""Streamed archives: members are uploaded as they come by, before anyone knows what they are for.

A manifest nearly always comes last, so the first pass guesses: it keeps JSON, opens an upload session for whatever can
be a layer, and skips the rest. A session becomes a blob when a manifest names it, and is cancelled when none does.
What a guess got wrong, or a broken connection lost, is sent in a further pass over the source. A pipe cannot be read
again, and then the push fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from registry_spooler.archive.compression import Compression, sniff
from registry_spooler.archive.formats.image import layer_compression
from registry_spooler.archive.member_blob import Expectation
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar_header import Kind, Member
from registry_spooler.errors import ArchiveError, UploadLost
from registry_spooler.oci.blob import Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor
from registry_spooler.progress import Progress
from registry_spooler.push.blob_spec import BlobSpec, Registry, UploadSink
from registry_spooler.push.uploader import RepositoryUploader

_TAR_MAGIC_AT: Final = 257
SESSIONS_MAX: Final = 256
"""Uploads of one push that are open while nobody knows yet what they are for. An image has at most 127 layers."""
_CANCEL_SECONDS: Final = 5.0
"""For giving up all open sessions; the registry purges what is left in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A member that an upload session has received. The session stays open until it is committed."""

    measured: Measured
    upload: UploadSink
    repository: str
    compression: Compression
    """What it was compressed to on the way."""
    error: ArchiveError | None = None
    """What is wrong with the compressed data, in case a manifest calls it a layer."""


class Sessions:
    """The uploads of one push that no manifest has named yet, by the members they came from."""

    def __init__(
        self, registry: Registry, progress: Progress, *, inflate: bool, hashes: bool = False, commit_early: bool
    ) -> None:
        self.kinds: dict[Member, Compression] = {}
        """How each member is compressed."""
        self.lost: set[Member] = set()
        """The members whose upload broke off for good; they are of a kind that could be sent."""
        self._registry = registry
        self._progress = progress
        self._inflate = inflate
        self._hashes_all = hashes or inflate or commit_early
        self._commit_early = commit_early
        self._sent: dict[Member, Sent] = {}

    async def commit(self, spec: BlobSpec, uploader: RepositoryUploader) -> Descriptor | None:
        """Make a blob of the session that received its bytes; return None if there is none, or it was lost."""
        member = spec.member
        if member is None or (found := self._sent.get(member)) is None or found.repository != uploader.repository:
            return None
        del self._sent[member]
        try:
            if found.compression is not spec.compression:
                return None  # the guess was wrong: a further pass sends the member in its other form
            _check(found, spec, member)
            await found.upload.commit(found.measured.digest)
            return await uploader.sent(spec, found.measured)
        except UploadLost:
            self._note_lost(member)
            return None
        finally:
            await found.upload.cancel()

    async def receive(self, archive: StreamedArchive, guess: Guess, *, keeps_documents: bool = True) -> None:
        """Make one pass: keep the JSON, send what `guess` wants of the rest, and remember how all of it is compressed.

        A later pass keeps nothing: it sends what is wanted, even if it looks like JSON, and commits it.
        """
        async for member in archive.members():
            self._count(archive)
            if member.kind is not Kind.FILE:
                continue
            head = archive.head
            self.kinds[member] = sniff(head)
            if keeps_documents and archive.is_document and await archive.keep() is not None:
                continue
            if member not in self._sent and (wanted := await guess(member, head)) is not None:
                commits = not keeps_documents or self._commits(wanted[1])
                if commits or len(self._sent) < SESSIONS_MAX:
                    await self._send(archive, member, *wanted, commits=commits)
        self._count(archive)

    def _commits(self, spec: BlobSpec) -> bool:
        """Return whether the member becomes a blob at once. Only one that goes by its digest may."""
        return spec.expect.digest is not None and (self._commit_early or len(self._sent) >= SESSIONS_MAX)

    async def _send(
        self, archive: StreamedArchive, member: Member, uploader: RepositoryUploader, spec: BlobSpec, *, commits: bool
    ) -> None:
        upload = await self._registry.begin_upload(uploader.repository)
        try:
            async with archive.blob(
                compression=spec.compression,
                expect=spec.expect,
                inflate=self._inflate,
                hashes=self._hashes(archive, member),
            )() as reader:
                reader.on_read = lambda _: self._count(archive)
                measured = await upload.send(reader, self._progress)
                error = reader.error
        except UploadLost:
            self._note_lost(member)
            await upload.cancel()
            return
        except BaseException:
            await upload.cancel()
            raise
        self._sent[member] = Sent(
            measured=measured,
            upload=upload,
            repository=uploader.repository,
            compression=spec.compression,
            error=error,
        )
        if commits:
            await self.commit(spec, uploader)

    def _note_lost(self, member: Member) -> None:
        self._progress.retries["upload"] += 1
        self.lost.add(member)

    def _hashes(self, archive: StreamedArchive, member: Member) -> bool:
        """Return whether to hash here. Else the registry checks, and a further pass hashes what it refused."""
        return self._hashes_all or member in self.lost or not archive.rereadable

    def _count(self, archive: StreamedArchive) -> None:
        self._progress.bytes_done = self._progress.bytes_read = archive.position

    async def aclose(self) -> None:
        """Cancel every session that was not committed."""
        with anyio.move_on_after(_CANCEL_SECONDS, shield=True):
            async with anyio.create_task_group() as tasks:
                for sent in self._sent.values():
                    tasks.start_soon(sent.upload.cancel)
        self._sent.clear()


def _check(found: Sent, spec: BlobSpec, member: Member) -> None:
    """Compare what a session received with what the manifest says of it; ArchiveError when they differ."""
    expect, measured = spec.expect, found.measured
    if expect.compression not in (None, Compression.NONE) and found.error is not None:
        raise found.error
    for name, wanted, got in (
        ("digest", expect.digest, measured.digest),
        ("diff ID", expect.diff_id, measured.diff_id),
        ("size", expect.size, measured.size),
    ):
        if wanted is not None and got is not None and wanted != got:
            raise ArchiveError(f"its {name} is {got}, and the image says {wanted}", where=member.path)


Guess = Callable[[Member, bytes], Awaitable[tuple[RepositoryUploader, BlobSpec] | None]]
"""Decides from a member's first bytes whether to send it, for whom, and as what."""


def guess_all(uploader: RepositoryUploader, setting: Compression, *, rereadable: bool) -> Guess:
    """Send whatever can be a blob and is not there yet, in the first pass of a push to one repository.

    A plain layer named by its digest is compressed if it is Docker's, as most are, and stays as it is if only an OCI
    manifest names it. What cannot be read again goes out as it is, which is never wrong.
    """

    async def guess(member: Member, head: bytes) -> tuple[RepositoryUploader, BlobSpec] | None:
        if not member.size:
            return None
        kind, digest = sniff(head), member.blob_digest
        may_be_layer = _may_be_layer(member, head, kind)
        if digest is None and not may_be_layer:
            return None
        try:
            compression = layer_compression(member, kind, setting)
        except ArchiveError:
            # No layer may be compressed so: an error only if a manifest names it.
            return None
        if digest is not None and not (may_be_layer and rereadable):
            compression = Compression.NONE
        spec = BlobSpec(
            member=member,
            expect=Expectation(digest=digest if compression is Compression.NONE else None),
            compression=compression,
            hint=digest or _named_digest(member),
        )
        return None if await uploader.holds(spec) else (uploader, spec)

    return guess


def guess_blobs(uploader: RepositoryUploader) -> Guess:
    """Send each blob that the repository lacks, as it is, from a stream of nothing but blobs."""

    async def guess(member: Member, head: bytes) -> tuple[RepositoryUploader, BlobSpec] | None:
        if member.blob_digest is None:
            return None
        spec = BlobSpec(member=member, expect=Expectation(digest=member.blob_digest))
        return None if await uploader.find(spec) is not None else (uploader, spec)

    return guess


def guess_wanted(wanted: dict[Member, tuple[RepositoryUploader, BlobSpec]]) -> Guess:
    """Send exactly these."""

    async def guess(member: Member, head: bytes) -> tuple[RepositoryUploader, BlobSpec] | None:
        return wanted.get(member)

    return guess


def _may_be_layer(member: Member, head: bytes, kind: Compression) -> bool:
    """Return whether it is compressed, a tar (the oldest have only the suffix), or the zeros of an empty one."""
    is_tar = head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar" or member.path.endswith(".tar") or not any(head)
    return kind is not Compression.NONE or is_tar


def _named_digest(member: Member) -> Digest | None:
    """Return the digest in a name like `<hex>.tar` or `<hex>.tar.gz`, as podman's and crane's archives have."""
    name = member.path.rpartition("/")[2].partition(".")[0]
    try:
        return Digest("sha256", name)
    except ValueError:
        return None
