"""What is to be pushed: an OCI image's graph without what is incomplete, and the manifests that are made here.

Those are OCI manifests (zot and others refuse Docker's types), and a pure function of their parts, so the same input
gives the same digest. An OCI archive's manifests are pushed byte for byte.

An index may list more platforms than its archive holds (`docker save` writes such). A child counts as present
when the archive holds it with all its blobs, or the registry does. When some are not, the pushed index holds
the rest, and when only one is left, that one's manifest takes the tag itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import orjson

from registry_spooler.aio import in_worker
from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import Expectation
from registry_spooler.archive.streaming import Archive
from registry_spooler.errors import ArchiveError, NotFound, RegistryProtocolError
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Descriptor, Manifest, Platform, load_object
from registry_spooler.oci.reference import Reference
from registry_spooler.push.blob_spec import BlobSpec, Registry, config_spec
from registry_spooler.push.uploader import RepositoryUploader

TITLE: Final = "org.opencontainers.image.title"
"""The annotation by which ORAS, and `registry-client pull --unpack`, name a file."""


def image_manifest(
    config: Descriptor, layers: tuple[Descriptor, ...], annotations: dict[str, str] | None = None
) -> Manifest:
    """Return the OCI manifest of a config and its layers."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = annotations
    return Manifest.parse(orjson.dumps(document))


def raw_manifest(config: Descriptor, layer: Descriptor, file_name: str) -> Manifest:
    """Return the manifest of a raw file's image; the layer's title is what `oras pull` would call its bytes."""
    titled = replace(layer, annotations={TITLE: f"{file_name}.gz"})
    return image_manifest(config, (titled,), {TITLE: file_name})


def partial_index(index: Manifest, kept: dict[Digest, Descriptor]) -> Manifest:
    """Return `index` with only the children in `kept`, by their digests, and every other field as it was.

    A child that is itself a pruned index is given its new digest and size.
    """
    document = load_object(index.content, where="index")
    entries = []
    for entry, child in zip(document["manifests"], index.manifests, strict=True):
        if (now := kept.get(child.digest)) is not None:
            entries.append({**entry, "digest": str(now.digest), "size": now.size, "mediaType": now.media_type})
    return Manifest.parse(orjson.dumps({**document, "manifests": entries}), media_type=index.media_type)


DEPTH_MAX: Final = 8
"""Indexes inside indexes. Builders nest two deep."""
MANIFESTS_MAX: Final = 2_000
"""Of one image, each counted as often as it is listed, so that a crafted graph ends."""
BLOBS_MAX: Final = 20_000
"""Of one image, those of each manifest counted once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A complete image: `root` goes under the tag, after `children` (deepest first) and all `specs`."""

    root: Manifest
    children: tuple[Manifest, ...] = ()
    specs: tuple[BlobSpec, ...] = ()
    held: tuple[Manifest, ...] = ()
    """Those below the root that the archive lacks and the registry has: there already, and part of the image."""
    missing: tuple[Digest, ...] = ()
    platforms: tuple[str, ...] = ()

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """Return the root and all below it, each once, whatever the archive held of them."""
        return tuple({manifest.digest: manifest for manifest in (self.root, *self.children, *self.held)}.values())

    @property
    def config(self) -> None:
        """None: nothing of it is made here, so that its layers stay as they are."""

    async def complete(self, uploader: RepositoryUploader) -> Plan:
        """Return the plan itself: nothing of it has to be made."""
        return self


@dataclass(frozen=True, slots=True)
class DockerPlan:
    """A docker archive's image, whose manifest is made of its config and its layers as they were stored."""

    config: ImageConfig
    layers: tuple[BlobSpec, ...]
    """The lowest first; one may come up twice."""

    async def complete(self, uploader: RepositoryUploader) -> Plan:
        """Store the config and make the manifest, once every layer is delivered."""
        layers = tuple(spec.foreign or uploader.delivered[spec] for spec in self.layers)
        spec = config_spec(self.config)
        if await uploader.find(spec) is None:
            await uploader.send_content(spec, self.config.content)
        platform = self.config.platform
        platforms = (str(platform),) if platform is not None else ()
        return Plan(root=image_manifest(self.config.descriptor, layers), platforms=platforms)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branch:
    """One manifest of the graph with what hangs below it; `lacks` says what keeps it from being complete."""

    descriptor: Descriptor
    manifest: Manifest | None
    """None when only the registry has it."""
    children: tuple[_Branch, ...] = ()
    held: tuple[Manifest, ...] = ()
    """What only the registry has: this manifest and what hangs below it."""
    specs: tuple[BlobSpec, ...] = ()
    platform: Platform | None = None
    lacks: str = ""
    weight: int = 1
    """How many manifests it is, with all below it."""

    def below(self) -> Iterator[_Branch]:
        """Yield all branches under this one, deepest first."""
        for child in self.children:
            yield from child.below()
            yield child


async def plan_image(root: Descriptor, archive: Archive, registry: Registry, uploader: RepositoryUploader) -> Plan:
    """Walk the graph under `root`; ArchiveError when nothing complete is left of it."""
    plan = await plan_or_lack(root, archive, registry, uploader)
    if isinstance(plan, ArchiveError):
        raise plan
    return plan


async def plan_or_lack(
    root: Descriptor, archive: Archive, registry: Registry, uploader: RepositoryUploader
) -> Plan | ArchiveError:
    """Walk the graph under `root`; return what it lacks when nothing complete is left of it."""
    missing: list[Digest] = []
    branch = _prune(await _Walk(archive, registry, uploader).branch(root, depth=0), missing)
    if branch.lacks:
        return archive.missing(branch.lacks)
    manifest = branch.manifest
    if manifest is None:
        manifest = await registry.get_manifest(Reference(uploader.repository, None, branch.descriptor.digest))
    every = (*branch.below(), branch)
    distinct = {b.manifest.digest: b for b in every if b.manifest is not None}.values()
    return Plan(
        root=manifest,
        held=tuple(held for b in every for held in (b.held[1:] if b is branch else b.held)),
        children=tuple({b.manifest.digest: b.manifest for b in every[:-1] if b.manifest is not None}.values()),
        specs=tuple(dict.fromkeys(spec for b in distinct for spec in b.specs)),
        missing=tuple(dict.fromkeys(missing)),
        platforms=tuple(dict.fromkeys(_platforms(every))),
    )


def _platforms(branches: tuple[_Branch, ...]) -> Iterator[str]:
    for branch in branches:
        is_image = branch.manifest is None or not branch.manifest.is_index
        platform = branch.descriptor.platform or branch.platform
        if is_image and not branch.descriptor.is_attestation and platform is not None and platform.os != "unknown":
            yield str(platform)


def _prune(branch: _Branch, missing: list[Digest]) -> _Branch:
    """Leave out of an index what is incomplete, and the attestations of what was left out."""
    if branch.manifest is None or not branch.manifest.is_index:
        return branch
    # An index may name one manifest several times (for two variants of a platform, say), so this is no dictionary.
    pruned = [(child.descriptor.digest, _prune(child, missing)) for child in branch.children]
    gone = {digest for digest, child in pruned if child.lacks}
    kept = [(digest, child) for digest, child in pruned if not {digest, child.descriptor.attests} & gone]
    left, listed = dict(kept), dict(pruned)
    missing += [digest for digest in listed if digest not in left]
    if all(child.descriptor.is_attestation for child in left.values()):
        return replace(branch, children=(), lacks=_nothing_left(branch))
    if len(left) == 1 < len(listed):
        return kept[0][1]
    children = tuple(child for _, child in kept)
    if children == branch.children:
        return branch
    index = partial_index(branch.manifest, {digest: child.descriptor for digest, child in left.items()})
    return replace(
        branch, descriptor=index.descriptor(platform=branch.descriptor.platform), manifest=index, children=children
    )


def _nothing_left(branch: _Branch) -> str:
    reasons = [child.lacks for child in branch.children if child.lacks]
    platforms = [str(child.descriptor.platform) for child in branch.children if child.descriptor.platform is not None]
    listed = f" ({', '.join(platforms[:8])})" if platforms else ""
    reason = reasons[0] if reasons else "it is empty"
    return f"any complete image of the {len(branch.children)} that its index lists{listed}: {reason}"


class _Walk:
    def __init__(self, archive: Archive, registry: Registry, uploader: RepositoryUploader) -> None:
        self._archive = archive
        self._registry = registry
        self._uploader = uploader
        self._manifests = 0
        self._blobs = 0
        self._configs: dict[Digest, tuple[Platform | None, tuple[Digest, ...]]] = {}
        self._walked: dict[tuple[Digest, str, int], _Branch] = {}

    async def branch(self, descriptor: Descriptor, depth: int) -> _Branch:
        """Return what hangs below a descriptor, walked once however often it is listed at that depth."""
        key = (descriptor.digest, descriptor.media_type, depth)
        walked = self._walked.get(key)
        if walked is not None and walked.descriptor.size == descriptor.size:
            self._count(depth, walked.weight)
            return replace(walked, descriptor=descriptor)
        self._count(depth)
        before = self._manifests
        branch = await self._walk(descriptor, depth)
        self._walked[key] = replace(branch, weight=1 + self._manifests - before)
        return self._walked[key]

    async def _walk(self, descriptor: Descriptor, depth: int) -> _Branch:
        manifest = await self._archive.manifest(descriptor)
        if manifest is None:
            return await self._absent(descriptor, depth)
        if descriptor.size != manifest.size:
            raise ArchiveError(
                f"it has {manifest.size} bytes, and what names it says {descriptor.size}",
                where=f"manifest {descriptor.digest.short}",
            )
        if depth:
            # Its parent names it so, by sha512 perhaps; a tag's own manifest goes by what registries answer, sha256.
            manifest = replace(manifest, digest=descriptor.digest)
        if manifest.is_index:
            children = [await self.branch(child, depth + 1) for child in manifest.manifests]
            return _Branch(descriptor=descriptor, manifest=manifest, children=tuple(children))
        return await self._image(descriptor, manifest)

    def _count(self, depth: int, manifests: int = 1) -> None:
        self._manifests += manifests
        if depth > DEPTH_MAX or self._manifests > MANIFESTS_MAX:
            raise ArchiveError(
                f"more than {DEPTH_MAX} indexes inside one another, or {MANIFESTS_MAX} manifests in one image"
            )

    async def _absent(self, descriptor: Descriptor, depth: int) -> _Branch:
        held = await self._held(descriptor, depth)
        lacks = "" if held is not None else f"the manifest {_name(descriptor)}"
        return _Branch(descriptor=descriptor, manifest=None, held=held or (), lacks=lacks)

    async def _held(self, descriptor: Descriptor, depth: int) -> tuple[Manifest, ...] | None:
        """Return the manifest as the registry has it, with what is below it, or None if it has none of that size."""
        at = Reference(self._uploader.repository, None, descriptor.digest)
        try:
            held = await self._registry.get_manifest(at)
        except NotFound:
            return None
        except RegistryProtocolError:
            # Of a kind that cannot be read here: its size is all that can be compared.
            found = await self._registry.head_manifest(at)
            return () if found is not None and found.size == descriptor.size else None
        if held.size != descriptor.size:
            return None
        below: list[Manifest] = []
        for child in held.manifests:
            self._count(depth + 1)
            below += await self._held(child, depth + 1) or ()  # whoever pushed it answers for what it lacks
        return (replace(held, digest=descriptor.digest), *below)

    async def _image(self, descriptor: Descriptor, manifest: Manifest) -> _Branch:
        self._blobs += len(manifest.blobs)
        if self._blobs > BLOBS_MAX:
            raise ArchiveError(f"more than {BLOBS_MAX:,} blobs in one image")
        platform, diff_ids = await self._read_config(manifest)
        branch = _Branch(descriptor=descriptor, manifest=manifest, platform=platform)
        specs = []
        for blob, spec in await in_worker(self._specs, manifest, diff_ids):
            if spec.member is not None or await self._uploader.holds(spec):
                specs.append(spec)
            elif not blob.is_foreign:
                what = "config" if blob is manifest.config else "layer"
                return replace(branch, lacks=f"the {what} {blob.digest} of the manifest {_name(descriptor)}")
        return replace(branch, specs=tuple(specs))

    def _specs(self, manifest: Manifest, diff_ids: dict[Digest, Digest]) -> list[tuple[Descriptor, BlobSpec]]:
        return [(blob, self._spec(blob, diff_ids.get(blob.digest))) for blob in dict.fromkeys(manifest.blobs)]

    def _spec(self, blob: Descriptor, diff_id: Digest | None) -> BlobSpec:
        is_layer = mediatype.is_image_layer(blob.media_type)
        expect = Expectation(
            digest=blob.digest,
            size=blob.size,
            # The layers of artifacts and encrypted images cannot be looked into.
            diff_id=diff_id if is_layer else None,
            compression=Compression(mediatype.layer_compression(blob.media_type)) if is_layer else None,
        )
        return BlobSpec(member=self._archive.find(blob.digest), expect=expect)

    async def _read_config(self, manifest: Manifest) -> tuple[Platform | None, dict[Digest, Digest]]:
        """Return the image's platform, and its layers' diff IDs by digest, if the archive has its config."""
        config = manifest.image_config
        if config is None:
            return None, {}
        if config.digest not in self._configs:
            content = await self._archive.content(config.digest)
            if content is None:
                return None, {}
            where = f"image config {config.digest.short}"
            parsed = await in_worker(partial(ImageConfig.parse, content, where=where))
            self._configs[config.digest] = parsed.platform, parsed.diff_ids
        platform, diff_ids = self._configs[config.digest]
        if len(diff_ids) == len(manifest.layers):
            return platform, dict(zip((layer.digest for layer in manifest.layers), diff_ids, strict=True))
        if diff_ids:  # attestations and images of artifacts have configs that list none
            raise ArchiveError(
                f"it lists {len(diff_ids)} layers, its manifest {len(manifest.layers)}",
                where=f"image config {config.digest.short}",
            )
        return platform, {}


def _name(descriptor: Descriptor) -> str:
    return f"{descriptor.digest}" + (f" ({descriptor.platform})" if descriptor.platform is not None else "")
