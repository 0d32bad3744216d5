"""A spool on a real directory, with a handler that does what the test says."""

from __future__ import annotations

import inspect
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import orjson

from registry_spooler.aio import in_thread
from registry_spooler.backoff import Backoff
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import BlobCounts, ImageResult, Progress
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.filename import Action
from registry_spooler.spool.scheduling.job import Job, JobEnd, Outcome
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.spool import Spool
from registry_spooler.spool.state import SpoolState

ALWAYS = {".births", ".bundle", ".reserve"}
"""What stays in `.work/`."""
FAST = Backoff(base_seconds=0.01, cap_seconds=0.05)

Act = Callable[[Job, OpenedFile, Progress], Awaitable[None] | None]


class Handler:
    """Pushes what it is given into a dictionary; acts before that as the test asked for, once per act."""

    def __init__(self) -> None:
        self.registry: dict[str, bytes] = {}
        """Reference to content, in the order of the pushes."""
        self.pushes: list[tuple[str, bytes]] = []
        """File names with contents, deletions included, as they were done."""
        self.attempts: list[str] = []
        self.running: list[str] = []
        self.most_running = 0
        self._acts: dict[str, deque[Act | Exception]] = defaultdict(deque)
        self._forever: dict[str, Exception] = {}

    def first(self, name: str, *acts: Act | Exception) -> None:
        """What happens at the next attempts at that file, before it is pushed."""
        self._acts[name].extend(acts)

    def always(self, name: str, error: Exception) -> None:
        self._forever[name] = error

    def heal(self, name: str) -> None:
        del self._forever[name]

    async def __call__(self, job: Job, file: OpenedFile, progress: Progress) -> tuple[ImageResult, ...]:
        self.attempts.append(job.name)
        self.running.append(job.name)
        self.most_running = max(self.most_running, len(self.running))
        try:
            return await self._do(job, file, progress)
        finally:
            self.running.remove(job.name)

    async def _do(self, job: Job, file: OpenedFile, progress: Progress) -> tuple[ImageResult, ...]:
        content = b"" if job.action is Action.DELETE else await in_thread(os.pread, file.fd, file.size, 0)
        if job.name in self._forever:
            raise self._forever[job.name]
        if self._acts[job.name]:
            act = self._acts[job.name].popleft()
            if isinstance(act, Exception):
                raise act
            if inspect.iscoroutinefunction(act):
                await act(job, file, progress)
            else:
                await in_thread(act, job, file, progress)
        self.pushes.append((job.name, content))
        if job.action is Action.DELETE:
            self.registry.pop(str(job.reference), None)
        else:
            self.registry[str(job.reference)] = content
            progress.bytes_sent += len(content)
        return (image(job.reference or Reference("bundled"), content),)


def image(reference: Reference, content: bytes) -> ImageResult:
    return ImageResult(
        reference=reference,
        digest=Digest.of(content),
        media_type="application/vnd.oci.image.manifest.v1+json",
        size_bytes=len(content),
        counts=BlobCounts(blobs_uploaded=1, uploaded_bytes=len(content)),
    )


class Running:
    """A spool that runs, and what it has said of its jobs."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.ends: list[JobEnd] = []
        self._news = anyio.Event()
        spool.state.on_job_end = self._take

    @property
    def state(self) -> SpoolState:
        return self.spool.state

    @property
    def outcomes(self) -> list[tuple[str, Outcome]]:
        return [(end.name, end.outcome) for end in self.ends]

    def _take(self, end: JobEnd) -> None:
        self.ends.append(end)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def until(self, reached: Callable[[], object], *, seconds: float = 15.0) -> None:
        """Wait until something is so; looked at after every end of a job, and now and then for what has no event."""
        with anyio.fail_after(seconds):
            while not reached():
                with anyio.move_on_after(0.02):
                    await self._news.wait()

    async def until_done(self, *names: str, seconds: float = 15.0) -> None:
        """Wait until each of these files has been done, or has failed, since this was first called for it."""
        await self.until(lambda: set(names) <= {end.name for end in self.ends if is_final(end)}, seconds=seconds)

    async def until_ready(self) -> None:
        await self.until(lambda: self.state.scanned.holds and self.state.watching.holds and self.state.writable.holds)


def is_final(end: JobEnd) -> bool:
    return end.outcome in {Outcome.DONE, Outcome.FAILED}


@asynccontextmanager
async def spooling(
    directory: Path, handler: Any, *, ping: Callable[[], Awaitable[None]] | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Run a spool until the block ends; it is stopped in good order then."""
    options: dict[str, Any] = {"backoff": FAST, "settle_seconds": 0.2, "shutdown_grace_seconds": 5.0} | settings
    running = Running(Spool(SpoolSettings(directory=directory, **options)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.spool.run, handler, ping)
        yield running
        running.spool.stop()


def drop(directory: Path, name: str, content: bytes = b"content") -> None:
    """Put a file into the spool as one should: under a name that is ignored, then renamed."""
    (directory / "drop~").write_bytes(content)
    os.rename(directory / "drop~", directory / name)


def receipt(directory: Path, name: str) -> dict[str, Any]:
    document = orjson.loads((directory / ".receipts" / f"{name}.json").read_bytes())
    assert isinstance(document, dict)
    return document


def failure(directory: Path, name: str) -> dict[str, Any]:
    document = orjson.loads((directory / ".failed" / f"{name}.error.json").read_bytes())
    assert isinstance(document, dict)
    return document


def visible(directory: Path) -> list[str]:
    """What is in the spool, the spooler's own things left out."""
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


def debris(directory: Path) -> list[str]:
    """What a spooler has left in its own folders, receipts, failures and what is always there left out."""
    return sorted(
        str(path.relative_to(directory))
        for folder in (".work", ".locks")
        for path in (directory / folder).rglob("*")
        if path.name not in ALWAYS
    )
