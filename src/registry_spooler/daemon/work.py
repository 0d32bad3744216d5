"""What the daemon does with a file: push it, or delete the image that its name means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import anyio

from registry_spooler.archive import FileSource, is_image_archive
from registry_spooler.daemon.memory import give_back
from registry_spooler.filename import Action
from registry_spooler.progress import Progress
from registry_spooler.push import Pusher
from registry_spooler.reference import Reference
from registry_spooler.registry import RegistryClient
from registry_spooler.result import ImageResult
from registry_spooler.spool import Job, OpenedFile
from registry_spooler.threads import in_thread

LARGE_BYTES: Final = 16 << 20
"""A push of less leaves nothing worth giving back."""


@dataclass(frozen=True, slots=True)
class Work:
    """The spool's handler for one registry."""

    client: RegistryClient
    pusher: Pusher

    async def __call__(self, job: Job, file: OpenedFile, progress: Progress) -> tuple[ImageResult, ...]:
        """Do what the file asks for; raises the project's errors, and OSError when the file cannot be read."""
        if job.action is Action.DELETE:
            assert job.reference is not None  # a bundle's name cannot ask for it
            return (await self._delete(job.reference),)
        source = FileSource(file.fd, name=file.name)
        try:
            return await self._push(job, source, file, progress)
        finally:
            if source.size >= LARGE_BYTES:
                with anyio.CancelScope(shield=True):
                    await in_thread(give_back)

    async def _push(
        self, job: Job, source: FileSource, file: OpenedFile, progress: Progress
    ) -> tuple[ImageResult, ...]:
        # Whoever forgot the suffix meant the image; a bundle has to have one.
        if job.filename.is_archive or await is_image_archive(source):
            return await self.pusher.push_archive(
                source, job.reference, progress, claim=job.claim, before_tag=file.check_unchanged
            )
        assert job.reference is not None
        return (await self.pusher.push_file(source, job.reference, progress, before_tag=file.check_unchanged),)

    async def _delete(self, reference: Reference) -> ImageResult:
        found = await self.client.head_manifest(reference)
        if found is None or not await self.client.delete_tag(reference):
            return ImageResult(reference=reference, digest=None)
        return ImageResult(reference=reference, digest=found.digest, media_type=found.media_type)
