"""An upload session at the registry: its place, and the four requests that it knows.

The place (`Location`) may move with every answer, may be on another host, and is used byte for byte.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import anyio

from registry_spooler.digest import Digest
from registry_spooler.errors import RefusedElsewhere, RegistryError, RegistryProtocolError
from registry_spooler.registry.exchange import Access, Exchange
from registry_spooler.registry.proof import is_page, shows_registry
from registry_spooler.registry.retry import RETRIED_STATUSES
from registry_spooler.registry.transport import Answer, Request, StreamedBody, whole_number
from registry_spooler.tasks import task_group

OCTETS: Final = "application/octet-stream"
ANY_THAT_STAYS: Final = frozenset(range(200, 500)) - RETRIED_STATUSES
CHUNK_SECONDS: Final = 300.0
"""For the answer to a chunk that has been sent: it may have to be on a disk, or in an object storage, before."""
OPENED_SECONDS: Final = 2.0
"""How long the answer to a request for a session is waited for by who no longer wants one."""
CANCEL_SECONDS: Final = 5.0
"""What an abandoned session is worth: registries clear them away by themselves."""


@dataclass(slots=True)
class UploadSession:
    """An open session; `location` is the newest one known."""

    exchange: Exchange
    access: Access
    location: str
    chunk_minimum_bytes: int = 0

    @classmethod
    async def start(cls, exchange: Exchange, repository: str, access: Access) -> UploadSession:
        """Open a session."""
        url = exchange.address.url(repository, "blobs", "uploads", "")
        answer = await open_session(exchange, url, access, expected={202})
        return cls.from_answer(exchange, answer, access)

    @classmethod
    def from_answer(cls, exchange: Exchange, answer: Answer, access: Access) -> UploadSession:
        """The session that a 202 speaks of."""
        location = answer.headers.get("Location", "")
        if not location:
            raise RegistryProtocolError(str(exchange.address), "it opened an upload without a Location")
        minimum = whole_number(answer.headers.get("OCI-Chunk-Min-Length"))
        return cls(
            exchange,
            access,
            exchange.rules.upload(answer.url, location),
            minimum or 0,
        )

    async def patch(self, body: StreamedBody, start: int | None) -> Answer:
        """Send bytes, with their range when `start` is given; any status is an answer."""
        headers = {"Content-Type": OCTETS}
        if body.length is not None:
            headers["Content-Length"] = str(body.length)
            if start is not None:
                headers["Content-Range"] = f"{start}-{start + body.length - 1}"
        request = Request(method="PATCH", url=self.location, headers=headers, body=body, head_seconds=CHUNK_SECONDS)
        return self._moved(await self.exchange.once(request, self.access))

    async def ask(self) -> Answer:
        """How much is stored? Any status but those that pass is an answer."""
        return self._moved(await self.exchange.call("GET", self.location, access=self.access, expected=ANY_THAT_STAYS))

    async def put(self, digest: Digest, content: bytes, head_seconds: float) -> Answer:
        """Close the session as a blob; `content` is all of it or, after PATCHes, nothing. Any status is an answer."""
        separator = "&" if "?" in self.location else "?"
        request = Request(
            method="PUT",
            url=f"{self.location}{separator}digest={quote(str(digest), safe='')}",
            headers={"Content-Type": OCTETS, "Content-Length": str(len(content))},
            body=content,
            head_seconds=head_seconds,
        )
        return await self.exchange.once(request, self.access)

    async def cancel(self) -> None:
        """Tell the registry to forget it: one attempt, whatever becomes of it, also while we are being cancelled."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_SECONDS):
            request = Request(method="DELETE", url=self.location, headers={"Content-Length": "0"})
            try:
                # Not logging in anew: registries ask for a right to delete here that hardly anybody has.
                await self.exchange.once(request, self.access, log_in_again=False)
            except RegistryError:
                return

    def _moved(self, answer: Answer) -> Answer:
        location = answer.headers.get("Location", "")
        if location and answer.status < 300:
            self.location = self.exchange.rules.upload(answer.url, location)
        return answer


async def open_session(exchange: Exchange, url: str, access: Access, *, expected: Collection[int]) -> Answer:
    """Send a POST that opens a session; one that is open when we are cancelled meanwhile is given back."""
    answer: Answer | None = None
    try:
        async with task_group() as tasks:
            with anyio.CancelScope(shield=True) as asking:
                tasks.start_soon(_hurry_when_cancelled, asking)
                answer = await exchange.call("POST", url, access=access, expected=expected, body=b"")
            tasks.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()
    except anyio.get_cancelled_exc_class():
        if answer is not None and answer.status == 202 and answer.headers.get("Location"):
            with suppress(RegistryError):
                await UploadSession.from_answer(exchange, answer, access).cancel()
        raise
    assert answer is not None
    return answer


async def _hurry_when_cancelled(asking: anyio.CancelScope) -> None:
    """Give a shielded request a little more time, once its caller has been cancelled."""
    try:
        await anyio.sleep_forever()
    finally:
        asking.deadline = anyio.current_time() + OPENED_SECONDS


async def blob_size(exchange: Exchange, repository: str, digest: Digest, access: Access) -> int | None:
    """The size in bytes of a blob that the registry has; None when it has not, or does not say how large it is."""
    url = exchange.address.url(repository, "blobs", str(digest))
    try:
        answer = await exchange.call("HEAD", url, access=access, expected={200, 404})
    except RefusedElsewhere:
        return None  # in a storage whose URLs are signed for GET alone: to be sent again is the safe way
    if answer.status == 404:
        return None
    said = answer.headers.get("Docker-Content-Digest", "")
    if is_page(answer.headers) or (said.startswith(f"{digest.algorithm}:") and said != str(digest)):
        raise RegistryProtocolError(
            str(exchange.address), f"asked for the blob {digest}, it answered for something else"
        )
    if not said and not shows_registry(answer) and exchange.is_own(answer):
        await exchange.prove()  # what says yes to everything holds no blob
    return whole_number(answer.headers.get("Content-Length"))
