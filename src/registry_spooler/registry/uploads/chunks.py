"""Sending a blob in ranged chunks to an upload session, and resuming in the middle.

The session's URL (`Location`) may change with every answer, may be on another host, and is used byte for byte.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks

`offset` is what the registry is known to hold. A chunk that was accepted moves it; after a failure the registry is
asked how much it has, and the next chunk begins there. A range is never sent twice blindly: servers that stream would
append it again. If the registry cannot say, the error is `UploadLost`, and the blob begins again.
"""

from __future__ import annotations

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
    RegistryError,
    RegistryProtocolError,
    RegistryUnreachable,
    UploadLost,
)
from registry_spooler.oci.digest import Digest
from registry_spooler.progress import Progress
from registry_spooler.registry.http.http_client import Access, HttpClient
from registry_spooler.registry.http.transport import Answer, Request, StreamedBody, whole_number
from registry_spooler.registry.uploads.vendors import LearnedLimits
from registry_spooler.registry.uploads.window import ChunkBudget, Window

ACCEPTED: Final = frozenset({200, 201, 202, 204})
"""202 by the specification; 201 from ECR."""
ANY_THAT_STAYS: Final = frozenset(range(200, 500)) - TRANSIENT_STATUSES
CHUNK_SECONDS: Final = 300.0
"""Time limit for the answer to a chunk: the registry may first write it to disk or object storage."""
COMMIT_SECONDS: Final = 900.0
"""A registry on object storage may hash and copy tens of gigabytes before it answers the last PUT."""
OPENED_SECONDS: Final = 2.0
"""How long a cancelled caller waits for the answer to its request for a session."""
CANCEL_SECONDS: Final = 5.0
"""Time limit for cancelling a session: registries remove abandoned ones by themselves."""

_NO_RANGES: Final = frozenset({400, 405, 411, 416, 501})
_RANGE: Final = re.compile(r"\s*(?P<unit>bytes=)?[0-9]{1,18}-(?P<last>-?[0-9]{1,18})\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPlace:
    """Where blobs go and how: what all uploads of a client to one repository share."""

    http: HttpClient
    repository: str
    access: Access
    limits: LearnedLimits
    budget: ChunkBudget

    async def open_session(self) -> UploadSession:
        """Open a session."""
        return UploadSession.of(self, await self.post(self.access, expected={202}))

    async def post(self, access: Access, *, expected: Collection[int], query: str = "") -> Answer:
        """Send the POST that opens a session; if we are cancelled meanwhile, the session is."""
        url = self.http.address.url(self.repository, "blobs", "uploads", "", query=query)
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
                    answer = await self.http.call("POST", url, access=access, expected=expected, body=b"")
                tasks.cancel_scope.cancel()
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            if answer is not None and answer.status == 202:
                with suppress(RegistryError):
                    await UploadSession.of(self, answer).cancel()
            raise
        assert answer is not None
        return answer


@dataclass(slots=True)
class UploadSession:
    """An open session; `location` is the newest one known."""

    place: UploadPlace
    location: str

    @classmethod
    def of(cls, place: UploadPlace, answer: Answer) -> UploadSession:
        """Return the session that a 202 opened."""
        location = answer.headers.get("Location", "")
        if not location:
            raise RegistryProtocolError(str(place.http.address), "it opened an upload without a Location")
        place.limits.raise_minimum(whole_number(answer.headers.get("OCI-Chunk-Min-Length")) or 0)
        return cls(place, place.http.rules.upload(answer.url, location))

    async def patch(self, body: StreamedBody, start: int | None) -> Answer:
        """Send bytes, with their range if `start` is given; any status is an answer."""
        headers = {"Content-Type": "application/octet-stream"}
        if body.size is not None:
            headers["Content-Length"] = str(body.size)
            if start is not None:
                headers["Content-Range"] = f"{start}-{start + body.size - 1}"
        request = Request(method="PATCH", url=self.location, headers=headers, body=body, head_seconds=CHUNK_SECONDS)
        return self._moved(await self.place.http.once(request, self.place.access))

    async def ask(self) -> Answer:
        """Ask how much is stored; any status but the passing ones is an answer."""
        place = self.place
        return self._moved(await place.http.call("GET", self.location, access=place.access, expected=ANY_THAT_STAYS))

    async def put(self, digest: Digest, content: bytes) -> Answer:
        """Commit the session as a blob. `content` is all of it, or empty after PATCHes; any status is an answer."""
        separator = "&" if "?" in self.location else "?"
        request = Request(
            method="PUT",
            url=f"{self.location}{separator}digest={quote(str(digest), safe='')}",
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(content))},
            body=content,
            head_seconds=COMMIT_SECONDS,
        )
        return await self.place.http.once(request, self.place.access)

    async def cancel(self) -> None:
        """Cancel it at the registry: one attempt, also while we are being cancelled; errors are ignored."""
        request = Request(method="DELETE", url=self.location, headers={"Content-Length": "0"})
        with anyio.move_on_after(CANCEL_SECONDS, shield=True), suppress(RegistryError):
            # Without a new login: registries ask for the right to delete here, which hardly anybody has.
            await self.place.http.once(request, self.place.access, log_in_again=False)

    def _moved(self, answer: Answer) -> Answer:
        location = answer.headers.get("Location", "")
        if location and answer.status < 300:
            self.location = self.place.http.rules.upload(answer.url, location)
        return answer


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


@dataclass(slots=True)
class ChunkSender:
    """Sends one blob over one session; `run` once."""

    _session: UploadSession
    _window: Window
    _progress: Progress
    offset: int = 0
    """What the registry is known to hold."""
    _failures: int = 0
    """Since the offset moved last."""
    _last_range: str | None = None

    async def run(self) -> None:
        """Send to the end; UploadLost, or what the registry refuses for good."""
        limits = self._session.place.limits
        while length := await self._window.next_chunk(
            limits.smallest_chunk_bytes, limits.chunk_bytes, limits.long_chunk_bytes
        ):
            await self._send(self.offset + length)

    async def _send(self, end: int) -> None:
        start, length = self.offset, end - self.offset
        try:
            answer = await self._session.patch(StreamedBody(lambda: self._window.body(start, length), length), start)
        except RegistryError as error:
            await self._resume(end, error)
            return
        if answer.status in ACCEPTED:
            await self._go_on(end, answer.headers.get("Range"))
        else:
            await self._recover(end, answer)

    async def _recover(self, end: int, answer: Answer) -> None:
        """Go on after a chunk that was not accepted."""
        start, place = self.offset, self._session.place
        error = place.http.error_of(answer)
        if answer.logged_in_anew and self._fails_again():
            # Refused before a byte was read: the offset has not moved.
            await self._window.go_to(start)
        elif answer.status == 413 and place.limits.halve_chunks(end - start):
            await self._ask(end, error)
        elif start == 0 and answer.status in _NO_RANGES:
            place.limits.ranged = False
            raise UploadLost(place.repository, "the registry takes no ranges") from error
        elif answer.status == 416 or answer.status in TRANSIENT_STATUSES:
            await self._resume(end, error)
        elif answer.status in {400, 404}:
            raise UploadLost(place.repository, f"the registry answered {answer.status} to a chunk") from error
        else:
            raise await place.http.refusal(answer)

    async def _go_on(self, end: int, stored: str | None) -> None:
        """Go on after a chunk that was accepted, unless `Range` shows only a part of it."""
        limits, last_range, self._last_range = self._session.place.limits, self._last_range, stored
        shown = _RANGE.fullmatch(stored or "")
        is_less = limits.trusts_range and shown is not None and int(shown["last"]) + 1 < end
        if is_less and stored == last_range:
            limits.trusts_range = is_less = False  # ECR's stays at the first chunk
        if is_less or self._window.written_end < end:
            await self._ask(end, None)
        else:
            await self._move_to(end)

    async def _resume(self, end: int, error: RegistryError) -> None:
        """Go on after a chunk of which an unknown part has arrived."""
        http, hint = self._session.place.http, self._session.place.limits.break_hint
        if not self._fails_again() or (error.transient and not await http.rest(error, self._failures)):
            if hint and not self.offset and isinstance(error, RegistryUnreachable):
                raise RegistryUnreachable(error.registry, f"{error.reason}; {hint}")
            raise error
        await self._ask(end, error)

    async def _ask(self, end: int, error: RegistryError | None) -> None:
        """Go on where the registry says that it is; `error` is why it is asked. None: it accepted the chunk."""
        place, answer = self._session.place, await self._session.ask()
        stored = stored_bytes(answer.headers.get("Range"), self.offset, end) if answer.status in ACCEPTED else None
        if error is None:
            if not self._fails_again() or stored is None:
                place.limits.trusts_range, stored = False, end
        else:
            self._progress.retries["upload"] += 1
            if answer.status in {401, 403}:
                raise await place.http.refusal(answer)
        if stored is None:
            raise UploadLost(place.repository, "the registry does not know how much of it has arrived") from error
        await self._move_to(stored)

    def _fails_again(self) -> bool:
        """Count a failure; return whether there may be another try."""
        self._failures += 1
        return self._failures < self._session.place.http.policy.tries

    async def _move_to(self, offset: int) -> None:
        if offset > self.offset:
            self._failures = 0
        self.offset = offset
        await self._window.go_to(offset)
