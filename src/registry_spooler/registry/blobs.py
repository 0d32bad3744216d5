"""Blobs in a repository: their sizes, and their bytes in pieces, verified, taken up again where they broke off.

The last piece is only handed out when the digest and the size of everything are right.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-blobs
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from registry_spooler.aio import in_thread
from registry_spooler.errors import RefusedElsewhere, RegistryError, RegistryProtocolError, RegistryUnreachable
from registry_spooler.oci.digest import Digest
from registry_spooler.registry.http.answer_errors import is_page, shows_registry
from registry_spooler.registry.http.http_client import Access, HttpClient
from registry_spooler.registry.http.transport import AnswerStream, Request, whole_number

_HASH_IN_THREAD_BYTES: Final = 1 << 16
"""Below this the way into a thread costs more than the hash."""


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


class BlobDownload:
    """One reading of one blob, front to back, by one task."""

    def __init__(self, http: HttpClient, repository: str, digest: Digest, access: Access, size: int | None) -> None:
        self._http = http
        self._url = http.address.url(repository, "blobs", str(digest))
        self._access = access
        self._digest = digest
        self._size = size
        self._hasher = hashlib.new(digest.algorithm)
        self._received = 0
        self._mishaps = 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The blob's bytes, at most 1 MiB at a time; RegistryProtocolError instead of the last when they are wrong."""
        held = b""
        while True:
            try:
                async with aclosing(self._attempt()) as attempt:
                    async for piece in attempt:
                        await self._count(piece)
                        if held:
                            yield held
                        held = piece
                break
            except RegistryError as error:
                # Without a byte since the last mishap, patience runs out.
                self._mishaps += 1
                if not await self._http.rest(error, self._mishaps):
                    raise
        self._verify()
        if held:
            yield held

    async def _attempt(self) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={self._received}-"} if self._received else {}
        request = Request(method="GET", url=self._url, headers=headers)
        async with self._http.open(request, self._access) as answer:
            skip = await self._skipped(answer)
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    if skip >= len(piece):
                        skip -= len(piece)
                        continue
                    yield piece[skip:] if skip else piece
                    skip = 0
            self._check_complete()

    async def _skipped(self, answer: AnswerStream) -> int:
        """How many bytes of the body are known already: all that were received, when `Range` was ignored."""
        if answer.status == 206 and self._received:
            content_range = answer.headers.get("Content-Range", "")
            if not content_range.startswith(f"bytes {self._received}-"):
                shown = self._http.rules.secrets.hide(content_range)[:80]
                raise RegistryProtocolError(
                    str(self._http.address),
                    f"asked for a blob from byte {self._received} on, it sent {shown!r}",
                )
            return 0
        if answer.status != 200:
            raise await self._http.refusal(await answer.finish())
        return self._received

    def _check_complete(self) -> None:
        """A body without Content-Length that breaks off looks like one that ended."""
        if self._size is not None and self._received < self._size:
            raise RegistryUnreachable(str(self._http.address), "a blob broke off")

    async def _count(self, piece: bytes) -> None:
        self._received += len(piece)
        self._mishaps = 0
        if self._size is not None and self._received > self._size:
            raise RegistryProtocolError(
                str(self._http.address), f"the blob {self._digest} is longer than its {self._size} bytes"
            )
        if len(piece) < _HASH_IN_THREAD_BYTES:
            self._hasher.update(piece)
        else:
            await in_thread(self._hasher.update, piece)

    def _verify(self) -> None:
        if self._hasher.hexdigest() != self._digest.hex:
            raise RegistryProtocolError(
                str(self._http.address),
                f"the content of the blob {self._digest} has another digest (sha: {self._hasher.hexdigest()[:12]}…)",
            )
