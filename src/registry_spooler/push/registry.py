"""What a push asks of the place it pushes to.

`registry.RegistryClient` is one such place; a client outside the cluster, which packs what the
registry lacks into a thin archive, is another.
"""

from __future__ import annotations

from typing import Protocol

from registry_spooler.blob import BlobOpener, BlobReader, Measured
from registry_spooler.digest import Digest
from registry_spooler.manifest import Descriptor, Manifest
from registry_spooler.progress import Progress
from registry_spooler.reference import Reference


class Upload(Protocol):
    """A blob on its way, which becomes one only by `commit`. Sessions may be held open side by side."""

    async def send(self, reader: BlobReader, progress: Progress) -> Measured:
        """Send all that the reader gives; UploadLost when it has to begin anew."""

    async def commit(self, digest: Digest) -> None:
        """Make the bytes a blob."""

    async def cancel(self) -> None:
        """Give the bytes up. Idempotent, never raises, a no-op after `commit`."""


class Registry(Protocol):
    """The registry's side of a push. Every method raises RegistryError."""

    async def blob_exists(self, repository: str, digest: Digest) -> int | None:
        """The blob's size in bytes; None when the repository does not hold it."""

    async def mount_blob(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """Take the blob over from another repository; False when that did not work."""

    async def begin_upload(self, repository: str) -> Upload:
        """Open an upload session, which the caller commits or cancels."""

    async def put_blob(self, repository: str, open_reader: BlobOpener, progress: Progress) -> Measured:
        """Send a blob whose source can be read again."""

    async def put_bytes(self, repository: str, content: bytes, progress: Progress | None = None) -> Digest:
        """Send a small blob."""

    async def head_manifest(self, reference: Reference) -> Descriptor | None:
        """What the registry answers for a tag or a digest; None when it has nothing."""

    async def get_manifest(self, reference: Reference) -> Manifest:
        """A manifest's bytes; NotFound when there is none."""

    async def put_manifest(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store a manifest under a tag or its digest."""

    async def put_companion(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store what speaks of the image that is tagged next, a signature say, under a tag of its own."""
