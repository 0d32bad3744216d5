"""Sending a blob in ranged chunks to an upload session, and resuming in the middle.

The session's URL (`Location`) may change with every answer, may be on another host, and is used byte for byte.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks

`offset` is what the registry is known to hold. A chunk that was accepted moves it; after a failure the registry is
asked how much it has, and the next chunk begins there. A range is never sent twice blindly: servers that stream would
append it again. If the registry cannot say, the error is `UploadLost`, and the blob begins again.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import anyio

from registry_spooler.aio import task_group
from registry_spooler.errors import (
    TRANSIENT_STATUSES,
    RefusedElsewhere,
    RegistryError,
    RegistryProtocolError,
    RegistryUnreachable,
    UploadLost,
)
from registry_spooler.oci.blob import BlobReader
from registry_spooler.oci.digest import Digest
from registry_spooler.progress import Progress
from registry_spooler.registry.http.answer_errors import is_page, shows_registry
from registry_spooler.registry.http.http_client import Access, HttpClient
from registry_spooler.registry.http.transport import Answer, Request, StreamedBody, whole_number
from registry_spooler.registry.uploads.vendors import LearnedLimits, UploadOptions
from registry_spooler.registry.uploads.window import ChunkBudget, Window

OCTETS: Final = "application/octet-stream"
ANY_THAT_STAYS: Final = frozenset(range(200, 500)) - TRANSIENT_STATUSES
CHUNK_SECONDS: Final = 300.0
"""Time limit for the answer to a chunk: the registry may first write it to disk or object storage."""
OPENED_SECONDS: Final = 2.0
"""How long a cancelled caller waits for the answer to its request for a session."""
CANCEL_SECONDS: Final = 5.0
"""Time limit for cancelling a session: registries remove abandoned ones by themselves."""


@dataclass(slots=True)
class UploadSession:
    """An open session; `location` is the newest one known."""

    http: HttpClient
    access: Access
    location: str
    chunk_minimum_bytes: int = 0

    @classmethod
    async def start(cls, http: HttpClient, repository: str, access: Access) -> UploadSession:
        """Open a session."""
        url = http.address.url(repository, "blobs", "uploads", "")
        answer = await open_session(http, url, access, expected={202})
        return cls.from_answer(http, answer, access)

    @classmethod
    def from_answer(cls, http: HttpClient, answer: Answer, access: Access) -> UploadSession:
        """Return the session that a 202 opened."""
        location = answer.headers.get("Location", "")
        if not location:
            raise RegistryProtocolError(str(http.address), "it opened an upload without a Location")
        minimum = whole_number(answer.headers.get("OCI-Chunk-Min-Length")) or 0
        return cls(http, access, http.rules.upload(answer.url, location), minimum)

    async def patch(self, body: StreamedBody, start: int | None) -> Answer:
        """Send bytes, with their range if `start` is given; any status is an answer."""
        headers = {"Content-Type": OCTETS}
        if body.size is not None:
            headers["Content-Length"] = str(body.size)
            if start is not None:
                headers["Content-Range"] = f"{start}-{start + body.size - 1}"
        request = Request(method="PATCH", url=self.location, headers=headers, body=body, head_seconds=CHUNK_SECONDS)
        return self._moved(await self.http.once(request, self.access))

    async def ask(self) -> Answer:
        """Ask how much is stored; any status but the passing ones is an answer."""
        return self._moved(await self.http.call("GET", self.location, access=self.access, expected=ANY_THAT_STAYS))

    async def put(self, digest: Digest, content: bytes, head_seconds: float) -> Answer:
        """Commit the session as a blob. `content` is all of it, or empty after PATCHes; any status is an answer."""
        separator = "&" if "?" in self.location else "?"
        request = Request(
            method="PUT",
            url=f"{self.location}{separator}digest={quote(str(digest), safe='')}",
            headers={"Content-Type": OCTETS, "Content-Length": str(len(content))},
            body=content,
            head_seconds=head_seconds,
        )
        return await self.http.once(request, self.access)

    async def cancel(self) -> None:
        """Cancel it at the registry: one attempt, also while we are being cancelled; errors are ignored."""
        request = Request(method="DELETE", url=self.location, headers={"Content-Length": "0"})
        with anyio.move_on_after(CANCEL_SECONDS, shield=True), suppress(RegistryError):
            # Without a new login: registries ask for the right to delete here, which hardly anybody has.
            await self.http.once(request, self.access, log_in_again=False)

    def _moved(self, answer: Answer) -> Answer:
        location = answer.headers.get("Location", "")
        if location and answer.status < 300:
            self.location = self.http.rules.upload(answer.url, location)
        return answer


async def open_session(http: HttpClient, url: str, access: Access, *, expected: Collection[int]) -> Answer:
    """Send a POST that opens a session, and cancel that session if we are cancelled meanwhile."""
    answer: Answer | None = None

    async def limit_when_cancelled(request: anyio.CancelScope) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            request.deadline = anyio.current_time() + OPENED_SECONDS

    try:
        async with task_group() as tasks:
            with anyio.CancelScope(shield=True) as request:
                tasks.start_soon(limit_when_cancelled, request)
                answer = await http.call("POST", url, access=access, expected=expected, body=b"")
            tasks.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()
    except anyio.get_cancelled_exc_class():
        if answer is not None and answer.status == 202 and answer.headers.get("Location"):
            with suppress(RegistryError):
                await UploadSession.from_answer(http, answer, access).cancel()
        raise
    assert answer is not None
    return answer


async def blob_size(http: HttpClient, repository: str, digest: Digest, access: Access) -> int | None:
    """Return the size in bytes of a blob; None when the registry does not have it, or gives no size."""
    url = http.address.url(repository, "blobs", str(digest))
    try:
        answer = await http.call("HEAD", url, access=access, expected={200, 404})
    except RefusedElsewhere:
        return None  # in a storage whose URLs are signed for GET alone: to be sent again is the safe way
    if answer.status == 404:
        return None
    declared = answer.headers.get("Docker-Content-Digest", "")
    if is_page(answer.headers) or (declared.startswith(f"{digest.algorithm}:") and declared != str(digest)):
        raise RegistryProtocolError(str(http.address), f"asked for the blob {digest}, it answered for something else")
    if not declared and not shows_registry(answer) and http.is_own(answer):
        await http.prove()  # what says yes to everything holds no blob
    return whole_number(answer.headers.get("Content-Length"))


ACCEPTED: Final = frozenset({200, 201, 202, 204})
"""202 by the specification; 201 from ECR."""
_NO_CHUNKS: Final = frozenset({400, 405, 411, 416, 501})
_RANGE: Final = re.compile(r"\s*(?P<unit>bytes=)?[0-9]{1,18}-(?P<last>-?[0-9]{1,18})\s*")


class Next(enum.Enum):
    """What to do next."""

    GO_ON = "the chunk is stored"
    ASK = "ask the registry how much it has"
    LOG_IN = "send the same bytes again with the new login"
    SMALLER = "ask how much is stored, then go on in smaller chunks"
    STREAM = "begin again, without ranges"
    RESTART = "begin the blob again"
    FAIL = "the registry refuses"


def after_chunk(status: int, text: str | None, start: int, end: int, *, ranged: bool, trusts_range: bool) -> Next:
    """Return what an answer to a PATCH of the bytes `start` to `end` (exclusive) means; `text` is its `Range`."""
    if status in ACCEPTED:
        stored = _RANGE.fullmatch(text or "")
        is_less = ranged and trusts_range and stored is not None and int(stored["last"]) + 1 < end
        return Next.ASK if is_less else Next.GO_ON
    if status == 401:
        return Next.LOG_IN
    if not ranged:
        return Next.RESTART if status == 404 or status in TRANSIENT_STATUSES else Next.FAIL
    if status == 413:
        return Next.SMALLER
    if start == 0 and status in _NO_CHUNKS:
        return Next.STREAM
    if status == 416 or status in TRANSIENT_STATUSES:
        return Next.ASK
    return Next.RESTART if status in {400, 404} else Next.FAIL


def stored_bytes(text: str | None, start: int, end: int) -> int | None:
    """Return the byte to go on from, by the `Range` of a session; None when the session cannot be used.

    `0-0` stands for nothing and for one byte; Quay writes `bytes=0-<count>`.
    """
    stored = _RANGE.fullmatch(text or "")
    if stored is None:
        return None
    count = int(stored["last"]) + (stored["unit"] is None)
    if count <= 1 and start == 0:
        count = 0
    return count if start <= count <= end else None


class RangesRefused(Exception):
    """The registry did not take the very first chunk, and may take the blob as one stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPlace:
    """Where blobs go and how: what all uploads of a client to one repository share."""

    http: HttpClient
    repository: str
    access: Access
    limits: LearnedLimits
    options: UploadOptions
    budget: ChunkBudget


@dataclass(slots=True)
class ChunkSender:
    """Sends one blob over one session; `run` once."""

    _place: UploadPlace
    _session: UploadSession
    _window: Window
    _reader: BlobReader
    _progress: Progress
    offset: int = 0
    """What the registry is known to hold."""
    _failures: int = 0
    """Since the offset moved last."""
    _logged_in_at: int | None = None
    _last_range: str | None = None

    async def run(self) -> None:
        """Send to the end; RangesRefused, UploadLost, or what the registry refuses for good."""
        while length := await self._next_length():
            await self._send(self.offset + length)

    async def _next_length(self) -> int:
        """Return how many bytes go into the next chunk; 0 at the end."""
        quirks, size = self._place.limits.quirks, self._reader.size
        if size is not None:
            # The length is known, so the chunk may leave before its bytes have been read.
            length = quirks.long_chunk_bytes if self._reader.rewindable else quirks.chunk_bytes
            return self._window.reserve(min(length, size - self.offset))
        return await self._window.wait_for_chunk(quirks.smallest_chunk_bytes, quirks.chunk_bytes)

    async def _send(self, end: int) -> None:
        start, length = self.offset, end - self.offset
        try:
            answer = await self._session.patch(StreamedBody(lambda: self._window.body(start, length), length), start)
        except RegistryError as error:
            self._window.check()
            await self._resume(end, error)
            return
        self._window.check()
        stored_range, limits = answer.headers.get("Range"), self._place.limits
        trusts = limits.quirks.trusts_range
        step = after_chunk(answer.status, stored_range, start, end, ranged=True, trusts_range=trusts)
        if step is Next.GO_ON and self._window.written_end < end:
            step = Next.ASK
        repeats = stored_range is not None and stored_range == self._last_range
        if step is Next.ASK and answer.status in ACCEPTED and repeats:
            limits.set(trusts_range=False)  # ECR's stays at the first chunk
            step = Next.GO_ON
        self._last_range = stored_range
        if step is Next.GO_ON:
            await self._move_to(end)
        elif step is Next.ASK and answer.status in ACCEPTED:
            await self._verify(end)
        else:
            await self._recover(step, answer, end)

    async def _recover(self, step: Next, answer: Answer, end: int) -> None:
        """Go on after a chunk that was not accepted."""
        error = self._place.http.error_of(answer)
        if step is Next.LOG_IN and answer.logged_in_anew and self._logged_in_at != self.offset:
            # Refused before a byte was read: the offset has not moved. Once more would be a refusal for good.
            self._logged_in_at = self.offset
            await self._window.go_to(self.offset)
        elif step is Next.STREAM:
            raise RangesRefused from error
        elif step is Next.SMALLER and self._place.limits.halve_chunks(end - self.offset):
            await self._ask(end, error)
        elif step is Next.ASK:
            await self._resume(end, error)
        elif step is Next.RESTART:
            raise UploadLost(self._place.repository, f"the registry answered {answer.status} to a chunk") from error
        else:
            raise await self._place.http.refusal(answer)

    async def _resume(self, end: int, error: RegistryError) -> None:
        """Go on after a chunk of which an unknown part has arrived."""
        self._failures += 1
        http, hint = self._place.http, self._place.limits.quirks.break_hint
        if self._failures >= http.policy.tries or (error.transient and not await http.rest(error, self._failures)):
            if hint and not self.offset and isinstance(error, RegistryUnreachable):
                raise RegistryUnreachable(error.registry, f"{error.reason}; {hint}")
            raise error
        await self._ask(end, error)

    async def _ask(self, end: int, error: RegistryError) -> None:
        """Ask the registry how much it has, and go on there."""
        self._progress.retries["upload"] += 1
        answer = await self._session.ask()
        if answer.status in {401, 403}:
            raise await self._place.http.refusal(answer)
        if (stored := self._stored(answer, end)) is None:
            raise UploadLost(self._place.repository, "the registry does not know how much of it has arrived") from error
        await self._move_to(stored)

    async def _verify(self, end: int) -> None:
        """Ask after a chunk that was accepted while `Range` shows only a part of it."""
        stored = self._stored(await self._session.ask(), end)
        self._failures += 1
        if stored is None or self._failures >= self._place.http.policy.tries:
            self._place.limits.set(trusts_range=False)
            stored = end
        await self._move_to(stored)

    def _stored(self, answer: Answer, end: int) -> int | None:
        return stored_bytes(answer.headers.get("Range"), self.offset, end) if answer.status in ACCEPTED else None

    async def _move_to(self, offset: int) -> None:
        if offset > self.offset:
            self._failures = 0
        self.offset = offset
        await self._window.go_to(offset)
