"""Sending a blob in ranged chunks, and taking it up again in the middle.

`offset` is what the registry is known to hold. A chunk that goes through moves it; after a mishap the
registry is asked how much it has, and the next chunk begins there. What cannot be mended here
is `UploadLost`, and the blob begins again.
"""

from __future__ import annotations

from registry_spooler.blob import BlobReader
from registry_spooler.errors import RegistryError, RegistryUnreachable, UploadLost
from registry_spooler.progress import Progress
from registry_spooler.registry.profile import Habits
from registry_spooler.registry.resume import ACCEPTED, Next, after_chunk, stored_bytes
from registry_spooler.registry.session import UploadSession
from registry_spooler.registry.transport import Answer, StreamedBody
from registry_spooler.registry.window import Window


class RangesRefused(Exception):
    """The registry did not take the very first chunk, and may take the blob as one stream."""


class ChunkSender:
    """Sends one blob over one session; `run` once."""

    def __init__(
        self,
        session: UploadSession,
        repository: str,
        window: Window,
        reader: BlobReader,
        habits: Habits,
        progress: Progress,
    ) -> None:
        self._session = session
        self._repository = repository
        self._window = window
        self._reader = reader
        self._habits = habits
        self._progress = progress
        self._mishaps = 0
        self._logged_in_at: int | None = None
        self._last_range: str | None = None
        self.offset = 0

    async def run(self) -> None:
        """Send to the end; RangesRefused, UploadLost, or what the registry refuses for good."""
        while length := await self._next_length():
            await self._send(self.offset + length)

    async def _next_length(self) -> int:
        """How many bytes go into the next chunk; 0 at the end."""
        profile, size = self._habits.profile, self._reader.size
        if size is not None:
            # The length is known, so the chunk may leave before its bytes have been read.
            length = profile.long_chunk_bytes if self._reader.rewindable else profile.chunk_bytes
            return self._window.reserve(min(length, size - self.offset))
        return await self._window.wait_for_chunk(profile.smallest_chunk_bytes, profile.chunk_bytes)

    async def _send(self, end: int) -> None:
        start, length = self.offset, end - self.offset
        body = StreamedBody(pieces=lambda: self._window.body(start, length), length=length)
        try:
            answer = await self._session.patch(body, start)
        except RegistryError as error:
            self._window.check()
            await self._resume(end, error)
            return
        self._window.check()
        text = answer.headers.get("Range")
        trusts = self._habits.profile.trusts_range
        verdict = after_chunk(answer.status, text, start, end, ranged=True, trusts_range=trusts)
        if verdict is Next.GO_ON and self._window.written_end < end:
            verdict = Next.ASK
        if verdict is Next.ASK and answer.status in ACCEPTED and self._repeats_itself(text):
            verdict = Next.GO_ON
        self._last_range = text
        if verdict is Next.GO_ON:
            await self._move_to(end)
        else:
            await self._mend(verdict, answer, end)

    def _repeats_itself(self, text: str | None) -> bool:
        """Does it say the same as after the chunk before? Then it does not count at all (ECR)."""
        if self._last_range is None or text != self._last_range:
            return False
        self._habits.distrust_range()
        return True

    async def _mend(self, verdict: Next, answer: Answer, end: int) -> None:
        error = self._session.exchange.error_of(answer)
        if verdict is Next.LOG_IN and answer.logged_in_anew and self._logged_in_at != self.offset:
            # Refused before a byte was read: the offset has not moved. Once more would be a refusal for good.
            self._logged_in_at = self.offset
            await self._window.go_to(self.offset)
        elif verdict is Next.STREAM:
            raise RangesRefused from error
        elif verdict is Next.SMALLER and self._habits.halve_chunks(end - self.offset):
            await self._ask(end, error)
        elif verdict is Next.ASK and answer.status in ACCEPTED:
            await self._verify(end, error)
        elif verdict is Next.ASK:
            await self._resume(end, error)
        elif verdict is Next.RESTART:
            raise UploadLost(self._repository, f"the registry answered {answer.status} to a chunk") from error
        else:
            raise await self._session.exchange.refusal(answer)

    async def _resume(self, end: int, error: RegistryError) -> None:
        """After a chunk of which nobody knows how much has arrived."""
        self._mishaps += 1
        exchange = self._session.exchange
        if self._mishaps >= exchange.policy.tries or (
            error.transient and not await exchange.rest(error, self._mishaps)
        ):
            raise self._explained(error)
        await self._ask(end, error)

    def _explained(self, error: RegistryError) -> RegistryError:
        hint = self._habits.profile.break_hint
        if self.offset or not hint or not isinstance(error, RegistryUnreachable):
            return error
        return RegistryUnreachable(error.registry, f"{error.reason}; {hint}")

    async def _ask(self, end: int, error: RegistryError) -> None:
        self._progress.retries["upload"] += 1
        answer = await self._session.ask()
        if answer.status in {401, 403}:
            raise await self._session.exchange.refusal(answer)
        stored = stored_bytes(answer.headers.get("Range"), self.offset, end) if answer.status in ACCEPTED else None
        if stored is None:
            raise UploadLost(self._repository, "the registry does not know how much of it has arrived") from error
        await self._move_to(stored)

    async def _verify(self, end: int, error: RegistryError) -> None:
        """A chunk that was accepted, though it is said that only a part of it was stored."""
        answer = await self._session.ask()
        text = answer.headers.get("Range")
        stored = stored_bytes(text, self.offset, end) if answer.status in ACCEPTED else None
        self._mishaps += 1
        if stored is None or self._mishaps >= self._session.exchange.policy.tries:
            self._habits.distrust_range()
            stored = end
        await self._move_to(stored)

    async def _move_to(self, offset: int) -> None:
        if offset > self.offset:
            self._mishaps = 0
        self.offset = offset
        await self._window.go_to(offset)
