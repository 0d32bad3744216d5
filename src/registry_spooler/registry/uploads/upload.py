"""Uploading one blob to a repository.

The flow: open a session → send what the reader gives, in ranged chunks or as one stream, while the next pieces are
being read → begin again from the first byte if nothing else helps → commit under the digest, or cancel.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

from typing import Final

from registry_spooler.aio import task_group
from registry_spooler.errors import (
    TRANSIENT_STATUSES,
    DigestNotSupported,
    RegistryError,
    RegistryProtocolError,
    UploadLost,
)
from registry_spooler.oci.blob import PIECE_BYTES, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.progress import Progress
from registry_spooler.registry.blobs import blob_size
from registry_spooler.registry.http.answer_errors import shows_registry
from registry_spooler.registry.http.transport import Answer, StreamedBody, one_piece
from registry_spooler.registry.uploads.chunks import ACCEPTED, ChunkSender, UploadPlace, UploadSession
from registry_spooler.registry.uploads.window import Window

RESTARTS: Final = 3
"""How often one blob may begin again from its first byte."""
SMALL_BLOB_BYTES: Final = PIECE_BYTES
"""A blob up to this size may go with its commit, in one PUT: two requests, not three."""
_NO_WHOLE_PUT: Final = frozenset({400, 405, 411, 413, 415, 416, 501})
_SESSION_GONE: Final = frozenset({400, 404, 416})


class Upload:
    """One upload, used by one task at a time; `send` once, then `commit` or `cancel`."""

    def __init__(self, place: UploadPlace, *, session: UploadSession | None = None, may_be_small: bool = False) -> None:
        self._place = place
        self._session = session
        self._may_be_small = may_be_small
        self._small: bytes | None = None
        self._sent = 0
        self._closed = False

    async def begin(self) -> UploadSession:
        """Open the session, unless it is open."""
        if self._session is None:
            self._session = await self._place.open_session()
        return self._session

    async def send(self, reader: BlobReader, progress: Progress) -> Measured:
        """Send every byte of the reader; UploadLost when the blob has to begin again and the reader cannot.

        The reader's own errors come out as they are. The reader is not touched any more afterwards.
        """
        readable_again = reader.rewindable and reader.size is not None
        retains = self._place.limits.ranged and not readable_again
        window = Window(reader, self._place.budget, progress, retains=retains)
        async with task_group() as tasks:
            tasks.start_soon(window.feed)
            try:
                await self._send_window(window, reader, progress)
            finally:
                window.close()
                tasks.cancel_scope.cancel()
        return reader.measured

    async def put_whole(self, content: bytes, digest: Digest) -> None:
        """Send and commit a small blob; in place of `send` and `commit`."""
        self._sent, self._small = len(content), content
        if not self._place.limits.whole_put:
            await self._send_small_otherwise(content)
        await self.commit(digest)

    async def commit(self, digest: Digest) -> None:
        """Make what was sent a blob of the repository; UploadLost when the registry no longer has it all."""
        failures = 0
        while True:
            try:
                await self._put(digest)
                break
            except RegistryError as error:
                # The work may have been done, and only the answer lost.
                if error.temporary and await self._size_of(digest) is not None:
                    break
                failures += 1
                if isinstance(error, UploadLost) or not await self._place.http.rest(error, failures):
                    raise
        self._closed = True
        if self._place.limits.checks_size and await self._size_of(digest) != self._sent:
            raise UploadLost(self._place.repository, "the registry kept only a part of it")

    async def cancel(self) -> None:
        """Cancel the session at the registry. May be called again; does nothing after a commit."""
        if not self._closed:
            self._closed = True
            await self._abandon_session()

    async def _abandon_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.cancel()

    async def _send_window(self, window: Window, reader: BlobReader, progress: Progress) -> None:
        """Send, and begin again from the first byte where that is needed and possible."""
        restarts = 0
        while True:
            try:
                await self._send_once(window, reader, progress)
                await window.wait_for_end()
                self._sent = window.end
                return
            except UploadLost:
                restarts += 1
                if restarts > RESTARTS or not window.reaches_back_to(0):
                    raise
            progress.retries["upload"] += 1
            await self._abandon_session()
            await window.go_to(0)

    async def _send_once(self, window: Window, reader: BlobReader, progress: Progress) -> None:
        session, limits = await self.begin(), self._place.limits
        # The registry may only now have said how long a chunk has to be.
        window.floor_bytes = max(window.floor_bytes, limits.smallest_chunk_bytes + PIECE_BYTES)
        if await self._is_small(window, reader):
            self._small = window.whole()
            progress.bytes_sent += len(self._small)
        elif limits.ranged:
            await ChunkSender(session, window, progress).run()
        elif reader.size != 0:
            window.stop_retaining()
            await self._send_stream(session, StreamedBody(lambda: window.body(0, reader.size), reader.size))

    async def _is_small(self, window: Window, reader: BlobReader) -> bool:
        """Read ahead, and return whether the blob fits into the last PUT."""
        may_be_small = self._may_be_small and self._place.limits.whole_put
        if not may_be_small or (reader.size or 0) > SMALL_BLOB_BYTES:
            return False
        await window.wait_for(SMALL_BLOB_BYTES + 1)
        return window.ended and window.start == 0 and window.end <= SMALL_BLOB_BYTES

    async def _send_stream(self, session: UploadSession, body: StreamedBody) -> None:
        http, repository = self._place.http, self._place.repository
        try:
            answer = await session.patch(body, None)
        except RegistryError as error:
            if not await http.rest(error, 1):
                raise
            raise UploadLost(repository, "a stream broke off") from error
        if answer.status == 404 or answer.status in TRANSIENT_STATUSES or answer.logged_in_anew:
            raise UploadLost(repository, f"the registry answered {answer.status} to a stream")
        if answer.status not in ACCEPTED:
            raise await http.refusal(answer)

    async def _send_small_otherwise(self, content: bytes) -> None:
        """Send a small blob in a PATCH, for a registry that takes none in the PUT."""
        self._place.limits.whole_put, self._small = False, None
        await self._abandon_session()
        await self._send_stream(await self.begin(), StreamedBody(lambda: one_piece(content), len(content)))

    async def _put(self, digest: Digest) -> None:
        session = await self.begin()
        answer = await session.put(digest, self._small or b"")
        if answer.status in ACCEPTED:
            await self._check_stored(answer, digest)
            return
        error = self._place.http.error_of(answer)
        if self._small and answer.status in _NO_WHOLE_PUT:
            await self._send_small_otherwise(self._small)
            await self._put(digest)
        elif answer.status == 400 and digest.algorithm != "sha256" and shows_registry(answer):
            raise DigestNotSupported(str(self._place.http.address), digest) from error
        elif answer.status in _SESSION_GONE:
            raise UploadLost(self._place.repository, f"the registry does not commit it ({error})") from error
        else:
            raise await self._place.http.refusal(answer)

    async def _check_stored(self, answer: Answer, digest: Digest) -> None:
        declared, address = answer.headers.get("Docker-Content-Digest"), str(self._place.http.address)
        if declared and declared.partition(":")[0] != digest.algorithm:
            raise DigestNotSupported(address, digest)
        if declared and declared != str(digest):
            raise RegistryProtocolError(
                address, f"it stored a blob as something else than {digest}, as which it was sent"
            )
        if not declared and await self._size_of(digest) is None:
            raise RegistryProtocolError(address, f"it answered {answer.status} to a blob, and does not hold it")

    async def _size_of(self, digest: Digest) -> int | None:
        return await blob_size(self._place.http, self._place.repository, digest, self._place.access)
