"""The client of one registry, with the operations and names of the specification.

One client serves all jobs of a process: they share its connections, tokens, pauses and chunk budget.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#api
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from registry_spooler.errors import AccessDenied, NotFound, RegistryProtocolError, SettingUnusable, UploadLost
from registry_spooler.oci.blob import BlobOpener, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.registry import manifests, referrers
from registry_spooler.registry import tags as listing
from registry_spooler.registry.address import RegistryAddress
from registry_spooler.registry.auth.credentials import CredentialSource
from registry_spooler.registry.auth.login import RegistryLogin
from registry_spooler.registry.blobs import BlobDownload, blob_size
from registry_spooler.registry.http.http_client import Access, HttpClient
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.http.transport import Transport
from registry_spooler.registry.http.trust import TargetRules, TrustStore
from registry_spooler.registry.tags import TagDeletion, confirm_deletion, delete_manifest
from registry_spooler.registry.uploads.chunks import ANY_THAT_STAYS, UploadPlace, UploadSession
from registry_spooler.registry.uploads.upload import RESTARTS, Upload
from registry_spooler.registry.uploads.vendors import LearnedLimits, UploadOptions
from registry_spooler.registry.uploads.window import ChunkBudget

T = TypeVar("T")

_SPARE_SESSIONS: Final = 8
"""Sessions that a mount opened instead of mounting, kept for the uploads that follow."""


class RegistryClient:
    """A registry, as an async context manager. Names are the caller's to check; sizes are in bytes."""

    def __init__(
        self,
        registry: str = "localhost:5000",
        *,
        certificate: Path | None = None,
        credentials: CredentialSource | None = None,
        pushes: bool = True,
        upload_options: UploadOptions | None = None,
        retry: RetryPolicy | None = None,
        budget: ChunkBudget | None = None,
        allow_private_targets: bool = False,
        pull_host: str = "",
    ) -> None:
        """`pushes`: ask token servers for the right to push at once, so that one token does for a whole push."""
        self.pull_host = pull_host
        """Where the nodes reach this registry, for the results of pushes; empty when nobody said so."""
        self._address = RegistryAddress.parse(registry, has_certificate=certificate is not None)
        self._limits = LearnedLimits.of_host(self._address.origin.host, upload_options or UploadOptions())
        self._budget = budget or ChunkBudget()
        self._actions = "pull,push" if pushes else "pull"
        self._trust, self._credentials = TrustStore(certificate), credentials
        rules = TargetRules(self._address.origin, allow_private=allow_private_targets)
        self._transport = Transport(self._trust, rules)
        self._http = HttpClient(
            address=self._address,
            transport=self._transport,
            login=RegistryLogin(self._address, self._transport, rules, credentials),
            rules=rules,
            policy=retry or RetryPolicy(),
        )
        self._spares: list[tuple[str, UploadSession]] = []

    def __repr__(self) -> str:
        return f"<RegistryClient {self.address}>"

    @property
    def address(self) -> str:
        """The address for display, with no login and no query."""
        return str(self._address)

    @property
    def retries(self) -> Counter[str]:
        """The number of requests that were sent again, by reason: `unreachable` or `status`."""
        return self._http.retries

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection; may be called twice."""
        spares, self._spares = self._spares, []
        for _, session in spares:
            await session.cancel()
        await self._transport.aclose()

    async def unusable_settings(self) -> tuple[SettingUnusable, ...]:
        """Return what is wrong with the files named in the settings; each can be fixed without a restart."""
        certificate = await self._trust.trouble()
        credentials = await self._credentials.troubles() if self._credentials is not None else ()
        return (*(() if certificate is None else (certificate,)), *credentials)

    async def ping(self) -> None:
        """Return when a registry answers and accepts our login; any RegistryError says why not."""
        await self._http.ping()

    def announce(self, reference: Reference, config: ImageConfig) -> None:
        """Nothing: a registry is sent layers whole."""

    async def blob_exists(self, repository: str, digest: Digest) -> int | None:
        """Return the blob's size in bytes; None when the repository does not have it."""
        return await blob_size(self._http, self._path(repository), digest, self._access(repository))

    async def mount_blob(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """Mount a blob from another repository; False when the registry did not."""
        place, source = self._place(repository), self._path(source_repository)
        access = (*place.access, f"repository:{source}:pull")
        try:
            answer = await place.post(access, expected=ANY_THAT_STAYS, query=f"mount={digest}&from={source}")
        except AccessDenied:
            # The token server gives nothing out for both repositories.
            return False
        if answer.status == 202 and answer.headers.get("Location"):
            # It has opened an upload instead: kept for the upload that now follows.
            session = UploadSession.of(place, answer)
            if len(self._spares) < _SPARE_SESSIONS:
                self._spares.append((repository, session))
            else:
                await session.cancel()
        return answer.status == 201

    async def begin_upload(self, repository: str) -> Upload:
        """Open an upload session; the caller commits or cancels it."""
        upload = Upload(self._place(repository), session=self._spare(repository))
        await upload.begin()
        return upload

    async def put_blob(self, repository: str, open_reader: BlobOpener, progress: Progress) -> Measured:
        """Upload and commit a blob, from its first byte up to RESTARTS times again."""

        async def send(upload: Upload) -> Measured:
            async with open_reader() as reader:
                measured = await upload.send(reader, progress)
            await upload.commit(measured.digest)
            return measured

        return await self._upload(repository, send, progress)

    async def put_bytes(self, repository: str, content: bytes, progress: Progress | None = None) -> Digest:
        """Upload and commit a small blob, in two requests."""
        progress = progress or Progress()
        digest = Digest.of(content)
        await self._upload(repository, lambda upload: upload.put_whole(content, digest), progress)
        progress.bytes_sent += len(content)
        return digest

    def open_blob(
        self, repository: str, digest: Digest, size: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Yield a blob in pieces of at most 1 MiB; the last one only when digest and size are right."""
        download = BlobDownload(self._http, self._path(repository), digest, self._access(repository), size)
        return aclosing(download.pieces())

    async def get_bytes(self, repository: str, digest: Digest, *, limit_bytes: int) -> bytes:
        """Return a small blob, verified; RegistryProtocolError when it is larger than the limit."""
        content = bytearray()
        async with self.open_blob(repository, digest) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > limit_bytes:
                    raise RegistryProtocolError(self.address, f"the blob {digest} has more than {limit_bytes} bytes")
        return bytes(content)

    async def head_manifest(self, reference: Reference) -> Descriptor | None:
        """Return what a tag or digest points to; None when it is not there."""
        reference = self._reference(reference)
        return await manifests.head_manifest(self._http, reference, self._access(reference.repository))

    async def get_manifest(self, reference: Reference) -> Manifest:
        """Return a manifest, verified; NotFound when it is not there."""
        reference = self._reference(reference)
        return await manifests.get_manifest(self._http, reference, self._access(reference.repository))

    async def put_manifest(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store a manifest under a tag or its digest; what it refers to must be there already.

        One with a subject is also listed under the referrers tag when the registry has no referrers API.
        """
        reference = self._reference(reference)
        access = self._access(reference.repository)
        answer = await manifests.put_manifest(self._http, reference, manifest, access)
        if manifest.subject is not None and "OCI-Subject" not in answer.headers:
            await referrers.note_referrer(self._http, reference.repository, manifest, access)
        return manifest.digest

    async def put_companion(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store a manifest that refers to the image that is tagged next (a signature, an SBOM)."""
        return await self.put_manifest(reference, manifest)

    async def list_referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is this digest."""
        return await referrers.list_referrers(self._http, self._path(repository), digest, self._access(repository))

    async def delete_tag(self, reference: Reference) -> bool:
        """Delete one tag, and no other of the same digest; False when it was not there.

        DeletesDisabled names the setting when the registry does not delete at all.
        """
        reference = self._reference(Reference(reference.repository, reference.tag))

        async def put(content: bytes) -> None:
            await self.put_bytes(reference.repository, content)

        return await TagDeletion(self._http, reference, self._delete_access(reference), put).run()

    async def delete_digest(self, reference: Reference) -> bool:
        """Delete a manifest by its digest, with every tag that points to it; False when it was not there."""
        if (digest := reference.digest) is None:
            raise ValueError("a deletion by digest needs one")
        reference = self._reference(Reference(reference.repository, None, digest))
        access = self._delete_access(reference)
        try:
            await delete_manifest(self._http, reference, access)
        except NotFound:
            return False
        await confirm_deletion(self._http, reference, access, digest)
        return True

    async def tags_of(self, repository: str, digest: Digest) -> tuple[str, ...]:
        """Return the tags that point to a digest; sends one request per tag of the repository."""
        found = []
        async with aclosing(self.list_tags(repository)) as tags:
            async for tag in tags:
                descriptor = await self.head_manifest(Reference(repository, tag))
                if descriptor is not None and descriptor.digest == digest:
                    found.append(tag)
        return tuple(found)

    def list_repositories(self) -> AsyncGenerator[str]:
        """Yield every repository of the catalog; RegistryAnswer when the registry has none."""
        return listing.list_repositories(self._http)

    def list_tags(self, repository: str) -> AsyncGenerator[str]:
        """Yield every tag of a repository; NotFound when there is no such repository."""
        return listing.list_tags(self._http, self._path(repository), self._access(repository))

    async def _upload(self, repository: str, send: Callable[[Upload], Awaitable[T]], progress: Progress) -> T:
        restarts = 0
        while True:
            upload = Upload(self._place(repository), session=self._spare(repository), may_be_small=True)
            try:
                return await send(upload)
            except UploadLost:
                restarts += 1
                if restarts > RESTARTS:
                    raise
                progress.retries["upload"] += 1
            finally:
                await upload.cancel()

    def _place(self, repository: str) -> UploadPlace:
        return UploadPlace(
            http=self._http,
            repository=self._path(repository),
            access=self._access(repository),
            limits=self._limits,
            budget=self._budget,
        )

    def _spare(self, repository: str) -> UploadSession | None:
        for index, (name, session) in enumerate(self._spares):
            if name == repository:
                del self._spares[index]
                return session
        return None

    def _path(self, repository: str) -> str:
        """Docker Hub puts single-component names into `library/`."""
        return f"library/{repository}" if self._address.is_docker_hub and "/" not in repository else repository

    def _reference(self, reference: Reference) -> Reference:
        return Reference(self._path(reference.repository), reference.tag, reference.digest)

    def _access(self, repository: str) -> Access:
        return (f"repository:{self._path(repository)}:{self._actions}",)

    def _delete_access(self, reference: Reference) -> Access:
        return (f"repository:{reference.repository}:pull,push,delete",)
