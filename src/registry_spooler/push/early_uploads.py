"""Streamed archives: members are uploaded as they come by, before anyone knows what they are for.

A manifest nearly always comes last, so the first pass guesses: JSON is kept, whatever can be a layer goes into
an upload session of its own, and the rest is passed over. A session becomes a blob when a manifest has named
it, and is cancelled when none has. What a guess got wrong, or a broken connection lost, is taken from a
further pass over the source, which then knows what it wants; a pipe cannot be read again, and then the push fails.
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
from registry_spooler.push.blobs import RepositoryUploader, WatchedReader

_TAR_MAGIC_AT: Final = 257
SESSIONS_MAX: Final = 256
"""Uploads of one push that are open while nobody knows yet what they are for. An image has at most 127 layers."""
_CANCEL_SECONDS: Final = 5.0
"""For giving up all open sessions; the registry purges what is left in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A member that an upload session has received; the session is open until somebody commits it."""

    measured: Measured
    upload: UploadSink
    repository: str
    compression: Compression
    """What it was compressed to on the way."""
    flaw: ArchiveError | None = None
    """What is wrong with the compressed data, for when a manifest calls it a layer."""


class Sessions:
    """The uploads of one push that no manifest has named yet, by the members they came from."""

    def __init__(
        self, registry: Registry, progress: Progress, *, inflate: bool, hashes: bool = False, commit_early: bool
    ) -> None:
        self.kinds: dict[Member, Compression] = {}
        """How each member turned out to be compressed."""
        self.lost: set[Member] = set()
        """The members whose upload broke off for good; they are of a kind that could be sent."""
        self._registry = registry
        self._progress = progress
        self._inflate = inflate
        self._hashes_all = hashes or inflate or commit_early
        self._commit_early = commit_early
        self._sent: dict[Member, Sent] = {}

    async def commit(self, need: BlobSpec, delivery: RepositoryUploader) -> Descriptor | None:
        """Make a blob of the session that received the need's bytes; None when there is none, or it was lost."""
        if need.member is None or (found := self._sent.get(need.member)) is None:
            return None
        if found.repository != delivery.repository:
            return None
        if found.compression is not need.compression:
            # The guess was wrong: a further pass sends the member in its other form.
            del self._sent[need.member]
            await found.upload.cancel()
            return None
        _check(found, need)
        del self._sent[need.member]
        try:
            return await delivery.commit(need, found.measured, found.upload)
        except UploadLost:
            self._note_lost(need.member)
            return None
        finally:
            await found.upload.cancel()

    async def receive(self, archive: StreamedArchive, guess: Guess, *, keeps_documents: bool = True) -> None:
        """One pass: keep the JSON, send what `guess` wants of the rest, and remember how all of it was compressed.

        A later pass keeps nothing: what is still wanted is to be sent, even if it looks like JSON, and is made a blob.
        """
        advanced = self._advanced(archive)
        async for member in archive.members():
            advanced()
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
        advanced()

    def _commits(self, need: BlobSpec) -> bool:
        """Does the member become a blob at once? Only when it goes by its digest; what else there is must wait."""
        return need.expect.digest is not None and (self._commit_early or len(self._sent) >= SESSIONS_MAX)

    async def _send(
        self, archive: StreamedArchive, member: Member, delivery: RepositoryUploader, need: BlobSpec, *, commits: bool
    ) -> None:
        upload = await self._registry.begin_upload(delivery.repository)
        try:
            async with archive.blob(
                compression=need.compression,
                expect=need.expect,
                inflate=self._inflate,
                hashes=self._hashes(archive, member),
            )() as reader:
                measured = await upload.send(WatchedReader(reader, self._advanced(archive)), self._progress)
                flaw = reader.flaw
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
            repository=delivery.repository,
            compression=need.compression,
            flaw=flaw,
        )
        if commits:
            await self.commit(need, delivery)

    def _note_lost(self, member: Member) -> None:
        self._progress.retries["upload"] += 1
        self.lost.add(member)

    def _hashes(self, archive: StreamedArchive, member: Member) -> bool:
        """Is the digest checked here? Else the registry does it, and what it refused is hashed in a further pass."""
        return self._hashes_all or member in self.lost or not archive.rereadable

    def _advanced(self, archive: StreamedArchive) -> Callable[[], None]:
        def advanced() -> None:
            self._progress.bytes_done = self._progress.bytes_read = archive.position

        return advanced

    async def aclose(self) -> None:
        """Cancel every session that was not committed."""
        with anyio.move_on_after(_CANCEL_SECONDS, shield=True):
            async with anyio.create_task_group() as tasks:
                for sent in self._sent.values():
                    tasks.start_soon(sent.upload.cancel)
        self._sent.clear()


def _check(found: Sent, need: BlobSpec) -> None:
    """Compare what a session received with what the manifest says of it; ArchiveError when they differ."""
    expect, measured = need.expect, found.measured
    if expect.compression not in (None, Compression.NONE) and found.flaw is not None:
        raise found.flaw
    for name, wanted, got in (
        ("digest", expect.digest, measured.digest),
        ("diff ID", expect.diff_id, measured.diff_id),
        ("size", expect.size, measured.size),
    ):
        if wanted is not None and got is not None and wanted != got:
            where = need.member.path if need.member is not None else None
            raise ArchiveError(f"its {name} is {got}, and the image says {wanted}", where=where)


Guess = Callable[[Member, bytes], Awaitable[tuple[RepositoryUploader, BlobSpec] | None]]
"""Whether a member that comes by is to be sent, from its head; for whom, and as what."""


def guess_all(delivery: RepositoryUploader, setting: Compression, *, rereadable: bool) -> Guess:
    """The first pass of a push to one repository: send whatever can be a blob and is not there yet.

    A plain layer that goes by its digest is compressed when it is Docker's, and stays as it is when only an OCI
    manifest names it. Most are Docker's. What cannot be read again goes out as it is, which is never wrong.
    """

    async def guess(member: Member, head: bytes) -> tuple[RepositoryUploader, BlobSpec] | None:
        if not member.size:
            return None  # there is nothing to send, whatever it turns out to be
        kind, digest = sniff(head), member.blob_digest
        may_be_layer = _may_be_layer(member, head, kind)
        if digest is None and not may_be_layer:
            return None
        try:
            compression = layer_compression(member, kind, setting)
        except ArchiveError:
            # Of a kind that no layer may have: an error only once a manifest names it.
            return None
        if digest is not None and not (may_be_layer and rereadable):
            compression = Compression.NONE
        need = BlobSpec(
            member=member,
            expect=Expectation(digest=digest if compression is Compression.NONE else None),
            compression=compression,
            hint=digest or _named_digest(member),
        )
        return None if await delivery.holds(need) else (delivery, need)

    return guess


def guess_blobs(delivery: RepositoryUploader) -> Guess:
    """A stream of nothing but blobs: send each that the repository lacks, as it is."""

    async def guess(member: Member, head: bytes) -> tuple[RepositoryUploader, BlobSpec] | None:
        if member.blob_digest is None:
            return None
        need = BlobSpec(member=member, expect=Expectation(digest=member.blob_digest))
        return None if await delivery.find(need) is not None else (delivery, need)

    return guess


async def guess_nothing(member: Member, head: bytes) -> None:
    """A bundle's first pass: which repository a member belongs to is known only at the end."""


def guess_wanted(wanted: dict[Member, tuple[RepositoryUploader, BlobSpec]]) -> Guess:
    """A later pass, or a bundle's: send exactly these."""

    async def guess(member: Member, head: bytes) -> tuple[RepositoryUploader, BlobSpec] | None:
        return wanted.get(member)

    return guess


def _may_be_layer(member: Member, head: bytes, kind: Compression) -> bool:
    """Is it compressed, or a tar (the oldest have no magic, but all writers a suffix), or the zeros of an empty one?"""
    is_tar = head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar" or member.path.endswith(".tar") or not any(head)
    return kind is not Compression.NONE or is_tar


def _named_digest(member: Member) -> Digest | None:
    """The digest in a name like `<hex>.tar` or `<hex>.tar.gz`, as podman's and crane's archives have."""
    name = member.path.rpartition("/")[2].partition(".")[0]
    try:
        return Digest("sha256", name)
    except ValueError:
        return None
