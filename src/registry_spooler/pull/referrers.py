"""What speaks of an image, as the registry knows it: signatures, attestations, SBOMs, and what speaks of these.

Each manifest of the image is asked about in two ways. The referrers API, or the index under the fallback tag, names
those with a `subject`; cosign's tags beside the image (`sha256-<digest>.sig`, `.att`, `.sbom`) are tried.

None of this may keep an image from being pulled: what a registry answers oddly, or holds only in part, is left out and
told in `warnings`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from registry_spooler.digest import Digest
from registry_spooler.errors import NotFound, RegistryAnswer, RegistryProtocolError
from registry_spooler.manifest import Descriptor, Manifest
from registry_spooler.pull.errors import ImageTooLarge
from registry_spooler.pull.tree import MANIFEST_BYTES_MAX, MANIFESTS_MAX, ImageTree, read_tree
from registry_spooler.reference import Reference
from registry_spooler.tasks import task_group

if TYPE_CHECKING:
    from registry_spooler.registry import RegistryClient

COSIGN_SUFFIXES: Final = (".sig", ".att", ".sbom")
_AT_ONCE: Final = 4
"""Manifests that are asked about at the same time."""
_ODD: Final = (RegistryAnswer, RegistryProtocolError)
"""What a registry may answer that does not have what is asked for; one that is away is another matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """A manifest that speaks of `subject`, with all that hangs on it."""

    subject: Digest
    suffix: str
    """Of cosign's tag; empty for a manifest that names its subject itself."""
    tree: ImageTree


@dataclass(slots=True)
class ReferrerSearch:
    """Finds what speaks of the manifests of one repository."""

    client: RegistryClient
    repository: str
    warnings: list[str] = field(default_factory=list)
    """What was left out or could not be asked, a sentence each."""
    _asks_api: bool = True
    _size_bytes: int = 0

    async def run(self, image: ImageTree) -> tuple[Referrer, ...]:
        """Find all, those of the root first; ImageTooLarge when there is no end of them."""
        found: dict[tuple[Digest, str, Digest], Referrer] = {}
        known = dict.fromkeys(image.manifests)
        waiting = list(known)
        while waiting:
            batch, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            answers: dict[Digest, list[Referrer]] = {}
            async with task_group() as group:
                for subject in batch:
                    group.start_soon(self._ask, subject, answers)
            for referrer in (referrer for subject in batch for referrer in answers[subject]):
                root = referrer.tree.root.digest
                if root in image.manifests:
                    continue  # a part of the image, such as BuildKit's attestation
                found.setdefault((referrer.subject, referrer.suffix, root), referrer)
                waiting += [digest for digest in referrer.tree.manifests if digest not in known]
                known |= dict.fromkeys(referrer.tree.manifests)
            self._check_size(len(known) + len(found))
        return tuple(found.values())

    async def _ask(self, subject: Digest, answers: dict[Digest, list[Referrer]]) -> None:
        answers[subject] = [referrer async for referrer in self._referrers(subject)]

    async def _referrers(self, subject: Digest) -> AsyncIterator[Referrer]:
        for entry in await self._list(subject):
            manifest = await self._manifest(Reference(self.repository, None, entry.digest))
            if manifest is None or manifest.subject is None or manifest.subject.digest != subject:
                self._warn(
                    f"{entry.digest} is left out: the registry says that it speaks of {subject}, which is not so"
                )
            elif (tree := await self._tree(manifest)) is not None:
                yield Referrer(subject=subject, suffix="", tree=tree)
        for suffix in COSIGN_SUFFIXES if subject.algorithm == "sha256" else ():
            manifest = await self._manifest(Reference(self.repository, f"sha256-{subject.hex}{suffix}"))
            if manifest is not None and (tree := await self._tree(manifest)) is not None:
                yield Referrer(subject=subject, suffix=suffix, tree=tree)

    async def _list(self, subject: Digest) -> tuple[Descriptor, ...]:
        if self._asks_api:
            try:
                return await self.client.list_referrers(self.repository, subject)
            except _ODD as exc:
                self._asks_api = False
                self._cannot_ask(exc)
        listing = await self._manifest(Reference(self.repository, f"{subject.algorithm}-{subject.hex[:64]}"))
        return listing.manifests if listing is not None else ()

    async def _manifest(self, reference: Reference) -> Manifest | None:
        try:
            return await self.client.get_manifest(reference)
        except NotFound:
            return None
        except _ODD as exc:
            self._cannot_ask(exc)
            return None

    async def _tree(self, root: Manifest) -> ImageTree | None:
        """The manifest with what hangs on it, when the registry holds all of it."""
        try:
            tree = await read_tree(self.client, self.repository, root)
            blobs = dict.fromkeys(blob.digest for blob in tree.blobs if not blob.is_foreign)
            lacking = [child.digest for child in tree.missing]
            lacking += [blob for blob in blobs if await self.client.blob_exists(self.repository, blob) is None]
        except _ODD as exc:
            self._cannot_ask(exc)
            return None
        if lacking:
            self._warn(f"{root.digest}, which speaks of the image, is left out: the registry lacks its {lacking[0]}")
            return None
        self._size_bytes += sum(manifest.size for manifest in tree.manifests.values())
        return tree

    def _check_size(self, manifests: int) -> None:
        if manifests > MANIFESTS_MAX or self._size_bytes > MANIFEST_BYTES_MAX:
            raise ImageTooLarge(self.repository, "too many manifests speak of it; leave them out with --no-referrers")

    def _cannot_ask(self, error: RegistryAnswer | RegistryProtocolError) -> None:
        """Say it once: it will be the same for the next manifest."""
        opening = "not all that speaks of the image (signatures, SBOMs) can be asked for"
        if not any(warning.startswith(opening) for warning in self.warnings):
            self._warn(f"{opening}: {error}")

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)
