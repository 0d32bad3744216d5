"""An image and what belongs to it: the index, its platforms, their attestations, and what refers to these.

`--platform` chooses the image; without it, it is the only one there is, or this machine's. Attestations are not images.
https://github.com/opencontainers/image-spec/blob/main/image-index.md#image-index-property-descriptions

Referrers (signatures, and attestations attached by `subject`) are looked for in two ways, for each manifest of the
image: by the referrers API, or the index under the fallback tag, and by cosign's tags beside the image
(`sha256-<digest>.sig`, `.att`, `.sbom`). They never keep an image from being pulled: what a registry answers oddly, or
holds only in part, is left out, with a warning.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from registry_spooler.aio import task_group
from registry_spooler.errors import NotFound, RegistryAnswer, RegistryProtocolError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import MANIFEST_MAX_BYTES, Descriptor, Manifest, Platform, load_object
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.output import ImageTooLarge, InvalidPlatform, PlatformNotFound

if TYPE_CHECKING:
    from registry_spooler.registry.registry_client import RegistryClient


_ARCHITECTURES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}
"""The names that machines use, and those of images."""
_SOLE_VARIANTS: Final = {("arm64", "v8"), ("amd64", "v1")}
"""Variants that are left out of names."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that may be chosen."""

    platform: Platform | None
    descriptor: Descriptor


def parse_platform(text: str) -> Platform:
    """Read `os/architecture[/variant]`, or an architecture alone, which is Linux's."""
    parts = text.strip().lower().split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    if len(parts) > 3 or not all(parts):
        raise InvalidPlatform(text)
    return normalised(Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else ""))


def this_machine() -> Platform:
    """Return Linux on this machine's processor."""
    return parse_platform(platform.machine() or "amd64")


def normalised(value: Platform) -> Platform:
    """Return the same platform by its usual name."""
    architecture = _ARCHITECTURES.get(value.architecture, value.architecture)
    variant = "" if (architecture, value.variant) in _SOLE_VARIANTS else value.variant
    return Platform(os=value.os, architecture=architecture, variant=variant)


def choose(image: str, candidates: Sequence[Candidate], wanted: Platform | None) -> Candidate:
    """Return the candidate that fits; PlatformNotFound lists them all."""
    if wanted is None and len(candidates) == 1:
        return candidates[0]
    target = wanted or this_machine()
    for fits in (_equals, _covers):
        if found := [candidate for candidate in candidates if fits(candidate.platform, target)]:
            return found[0]
    wish = str(wanted) if wanted is not None else f"{target} (this machine)"
    raise PlatformNotFound(image, wish, _listed(candidate.platform for candidate in candidates))


def _equals(offered: Platform | None, wanted: Platform) -> bool:
    return offered is not None and normalised(offered) == wanted


def _covers(offered: Platform | None, wanted: Platform) -> bool:
    """Return whether it is the wanted platform, when no variant is wanted."""
    if offered is None or wanted.variant:
        return False
    return (offered.os, normalised(offered).architecture) == (wanted.os, wanted.architecture)


def _listed(platforms: Iterable[Platform | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(offered) if offered is not None else "unknown" for offered in platforms))


async def image_for(client: RegistryClient, reference: Reference, root: Manifest, wanted: Platform | None) -> Manifest:
    """Return the image manifest that `root` is, or has, for a platform."""
    if not root.is_index:
        if wanted is not None:
            offered = await platform_of(client, reference.repository, root)
            choose(str(reference), [Candidate(offered, root.descriptor())], wanted)
        return root
    tree = await read_tree(client, reference.repository, root)
    manifests = tree.manifests
    candidates = [
        Candidate(child.platform or await platform_of(client, reference.repository, manifests[child.digest]), child)
        for parent in manifests.values()
        for child in parent.manifests
        if child.is_manifest and not child.is_attestation and child.digest in manifests
    ]
    return manifests[choose(str(reference), candidates, wanted).descriptor.digest]


async def platform_of(client: RegistryClient, repository: str, manifest: Manifest) -> Platform | None:
    """Return the platform in an image's config; None for artifacts, and for configs that name none."""
    config = manifest.image_config
    if config is None:
        return None
    content = await client.get_bytes(repository, config.digest, limit_bytes=MANIFEST_MAX_BYTES)
    return Platform.read(load_object(content, where=f"image config {config.digest.short}"))


MANIFESTS_MAX: Final = 1_000
"""The largest indexes in use have some fifty images, each with an attestation."""
MANIFEST_BYTES_MAX: Final = 32 << 20
"""All manifests of one image together; they are held in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTree:
    """The manifests by the digests that name them, in the order in which they are found, the root first."""

    root: Manifest
    manifests: Mapping[Digest, Manifest]
    others: tuple[Descriptor, ...] = ()
    """What an index lists that is not a manifest; it is taken as a blob."""
    missing: tuple[Descriptor, ...] = ()
    """Children of an index that the registry does not hold."""

    @property
    def blobs(self) -> Iterator[Descriptor]:
        """Yield all configs, then all layers; a blob that is named twice comes twice."""
        yield from (manifest.config for manifest in self.manifests.values() if manifest.config is not None)
        yield from (layer for manifest in self.manifests.values() for layer in manifest.layers)
        yield from self.others


async def read_tree(client: RegistryClient, repository: str, root: Manifest) -> ImageTree:
    """Read all manifests below `root`; one request for each."""
    found = {root.digest: root}
    others: list[Descriptor] = []
    missing: list[Descriptor] = []
    waiting = list(root.manifests)
    size_bytes = root.size
    while waiting:
        child = waiting.pop(0)
        if child.digest in found:
            continue
        if not (child.is_index or child.is_manifest):
            others.append(child)
            continue
        try:
            manifest = await client.get_manifest(Reference(repository, None, child.digest))
        except NotFound:
            missing.append(child)
            continue
        found[child.digest] = manifest
        size_bytes += manifest.size
        waiting.extend(manifest.manifests)
        _check_size(repository, len(found) + len(waiting), size_bytes)
    return ImageTree(root=root, manifests=found, others=tuple(others), missing=tuple(missing))


def _check_size(repository: str, manifests: int, size_bytes: int) -> None:
    if manifests > MANIFESTS_MAX:
        raise ImageTooLarge(repository, f"it has more than {MANIFESTS_MAX} manifests")
    if size_bytes > MANIFEST_BYTES_MAX:
        raise ImageTooLarge(repository, f"its manifests have more than {MANIFEST_BYTES_MAX >> 20} MiB")


COSIGN_SUFFIXES: Final = (".sig", ".att", ".sbom")
_AT_ONCE: Final = 4
"""Manifests whose referrers are looked for at the same time."""
_ODD: Final = (RegistryAnswer, RegistryProtocolError)
"""How a registry may answer for what it lacks or does not know; a registry that is away is a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedManifest:
    """A manifest that refers to `subject`, with all below it."""

    subject: Digest
    suffix: str
    """Of cosign's tag; empty for a manifest that names its subject itself."""
    tree: ImageTree


@dataclass(slots=True)
class ReferrerSearch:
    """Finds what refers to the manifests of one repository."""

    client: RegistryClient
    repository: str
    warnings: list[str] = field(default_factory=list)
    """A sentence for each thing that was left out."""
    _asks_api: bool = True
    _size_bytes: int = 0

    async def run(self, image: ImageTree) -> tuple[AttachedManifest, ...]:
        """Return all referrers, those of the root first; ImageTooLarge when there is no end of them."""
        found: dict[tuple[Digest, str, Digest], AttachedManifest] = {}
        known = dict.fromkeys(image.manifests)
        waiting = list(known)
        while waiting:
            batch, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            answers: dict[Digest, list[AttachedManifest]] = {}
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

    async def _ask(self, subject: Digest, answers: dict[Digest, list[AttachedManifest]]) -> None:
        answers[subject] = [referrer async for referrer in self._referrers(subject)]

    async def _referrers(self, subject: Digest) -> AsyncIterator[AttachedManifest]:
        for entry in await self._list(subject):
            manifest = await self._manifest(Reference(self.repository, None, entry.digest))
            if manifest is None or manifest.subject is None or manifest.subject.digest != subject:
                self._warn(
                    f"{entry.digest} is left out: the registry says that it speaks of {subject}, which is not so"
                )
            elif (tree := await self._tree(manifest)) is not None:
                yield AttachedManifest(subject=subject, suffix="", tree=tree)
        for suffix in COSIGN_SUFFIXES if subject.algorithm == "sha256" else ():
            manifest = await self._manifest(Reference(self.repository, f"sha256-{subject.hex}{suffix}"))
            if manifest is not None and (tree := await self._tree(manifest)) is not None:
                yield AttachedManifest(subject=subject, suffix=suffix, tree=tree)

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
        """Return the manifest with all below it, or None if the registry lacks some of it."""
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
        """Warn once: it will be the same for the next manifest."""
        opening = "not all that speaks of the image (signatures, SBOMs) can be asked for"
        if not any(warning.startswith(opening) for warning in self.warnings):
            self._warn(f"{opening}: {error}")

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)
