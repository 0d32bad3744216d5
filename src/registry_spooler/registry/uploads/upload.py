"""Uploading one blob to a repository.

The flow: open a session → send what the reader gives, in ranged chunks or as one stream, while the next pieces are
being read → begin again from the first byte if nothing else helps → commit under the digest, or cancel.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

from typing import Final

import anyio

from registry_spooler.errors import DigestNotSupported, RegistryError, RegistryProtocolError, UploadLost
from registry_spooler.oci.blob import PIECE_BYTES, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.progress import Progress
from registry_spooler.registry.http.answer_errors import shows_registry
from registry_spooler.registry.http.transport import Answer, StreamedBody, one_piece
from registry_spooler.registry.uploads.chunks import (
    ACCEPTED,
    ChunkSender,
    Next,
    RangesRefused,
    UploadPlace,
    UploadSession,
    after_chunk,
    blob_size,
)
from registry_spooler.registry.uploads.window import Window

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

    @property
    def repository(self) -> str:
        """Where the blob will be."""
        return self._place.repository

    async def send(self, reader: BlobReader, progress: Progress) -> Measured:
        """Send every byte of the reader; UploadLost when the blob has to begin again and the reader cannot.

        The reader's own errors come out as they are. The reader is not touched any more afterwards.
        """
        readable_again = reader.rewindable and reader.size is not None
        retains = self._place.limits.quirks.ranged and not readable_again
        window = Window(reader, self._place.budget.share(), progress, retains=retains)
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(window.feed)
            try:
                await self._send_window(window, reader, progress)
            except Exception as exc:  # noqa: BLE001 - raised again below, outside the group, as itself
                failure = exc
            finally:
                window.close()
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return reader.measured

    async def put_whole(self, content: bytes, digest: Digest) -> None:
        """Send and commit a small blob; in place of `send` and `commit`."""
        self._sent, self._small = len(content), content
        if not self._place.limits.quirks.whole_put:
            await self._send_small_otherwise(content)
        await self.commit(digest)

    async def commit(self, digest: Digest) -> None:
        """Make what was sent a blob of the repository; UploadLost when the registry no longer has it all."""
        failures = 0
        while True:
            try:
                if await self._try_commit(digest):
                    break
            except RegistryError as error:
                # The work may have been done, and only the answer lost.
                if (error.temporary or isinstance(error, UploadLost)) and await self._size_of(digest) is not None:
                    break
                failures += 1
                if isinstance(error, UploadLost) or not await self._place.http.rest(error, failures):
                    raise
        self._closed = True
        if self._place.limits.quirks.checks_size and await self._size_of(digest) != self._sent:
            raise UploadLost(self.repository, "the registry kept only a part of it")

    async def cancel(self) -> None:
        """Cancel the session at the registry. May be called again; does nothing after a commit."""
        if self._closed or self._session is None:
            return
        self._closed = True
        await self._session.cancel()

    async def begin(self) -> UploadSession:
        """Open the session, unless it is open."""
        if self._session is None:
            place = self._place
            self._session = await UploadSession.start(place.http, place.repository, place.access)
        self._place.limits.raise_minimum(self._session.chunk_minimum_bytes)
        return self._session

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
            except RangesRefused:
                self._place.limits.set(ranged=False)
            except UploadLost:
                restarts += 1
                if restarts > self._place.options.restarts or not window.reaches_back_to(0):
                    raise
            except RegistryError:
                # When the reader is why the body broke off, its error is the one to tell.
                window.check()
                raise
            else:
                self._sent = window.end
                return
            progress.retries["upload"] += 1
            await self._abandon_session()
            await window.go_to(0)

    async def _send_once(self, window: Window, reader: BlobReader, progress: Progress) -> None:
        session = await self.begin()
        # The registry may only now have said how long a chunk has to be.
        window.ask_for_floor(self._place.limits.quirks.smallest_chunk_bytes + PIECE_BYTES)
        if await self._is_small(window, reader):
            self._small = window.whole()
            progress.bytes_sent += len(self._small)
        elif self._place.limits.quirks.ranged:
            await ChunkSender(self._place, session, window, reader, progress).run()
        elif reader.size != 0:
            window.stop_retaining()
            await self._send_stream(session, StreamedBody(lambda: window.body(0, reader.size), reader.size))

    async def _is_small(self, window: Window, reader: BlobReader) -> bool:
        """Read ahead, and return whether the blob fits into the last PUT."""
        if not self._may_be_small or not self._place.limits.quirks.whole_put:
            return False
        if (reader.size or 0) > SMALL_BLOB_BYTES:
            return False
        await window.wait_for(SMALL_BLOB_BYTES + 1)
        return window.ended and window.start == 0 and window.end <= SMALL_BLOB_BYTES

    async def _send_stream(self, session: UploadSession, body: StreamedBody) -> None:
        http = self._place.http
        try:
            answer = await session.patch(body, None)
        except RegistryError as error:
            if not await http.rest(error, 1):
                raise
            raise UploadLost(self.repository, "a stream broke off") from error
        verdict = after_chunk(answer.status, None, 0, 0, ranged=False, trusts_range=False)
        if verdict is Next.RESTART or (verdict is Next.LOG_IN and answer.logged_in_anew):
            raise UploadLost(self.repository, f"the registry answered {answer.status} to a stream")
        if verdict is not Next.GO_ON:
            raise await http.refusal(answer)

    async def _try_commit(self, digest: Digest) -> bool:
        session = await self.begin()
        answer = await session.put(digest, self._small or b"", self._place.options.commit_seconds)
        if answer.status in ACCEPTED:
            await self._check_stored(answer, digest)
            return True
        error = self._place.http.error_of(answer)
        if self._small and answer.status in _NO_WHOLE_PUT:
            await self._send_small_otherwise(self._small)
            return False
        if answer.status == 400 and digest.algorithm != "sha256" and shows_registry(answer):
            raise DigestNotSupported(str(self._place.http.address), digest) from error
        if answer.status in _SESSION_GONE:
            raise UploadLost(self.repository, f"the registry does not commit it ({error})") from error
        raise await self._place.http.refusal(answer)

    async def _send_small_otherwise(self, content: bytes) -> None:
        """Send a small blob in a PATCH, for a registry that takes none in the PUT."""
        self._place.limits.set(whole_put=False)
        self._small = None
        await self._abandon_session()
        await self._send_stream(await self.begin(), StreamedBody(lambda: one_piece(content), len(content)))

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
        return await blob_size(self._place.http, self.repository, digest, self._place.access)
