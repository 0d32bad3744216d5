"""Which image of an index is meant.

`--platform` decides; without it, the only image there is, or else this machine's. Attestations are never "the image".
https://github.com/opencontainers/image-spec/blob/main/image-index.md#image-index-property-descriptions
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry_spooler import mediatype
from registry_spooler.manifest import MANIFEST_MAX_BYTES, Descriptor, Manifest, Platform, load_object
from registry_spooler.pull.errors import InvalidPlatform, PlatformNotFound
from registry_spooler.pull.tree import read_tree
from registry_spooler.reference import Reference

if TYPE_CHECKING:
    from registry_spooler.registry import RegistryClient

_ARCHITECTURES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}
"""What machines call themselves, and what images call them."""
_SOLE_VARIANTS: Final = {("arm64", "v8"), ("amd64", "v1")}
"""Variants that go without saying."""


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
    """Linux on this machine's processor."""
    return parse_platform(platform.machine() or "amd64")


def normalised(value: Platform) -> Platform:
    """The same platform by its usual name."""
    architecture = _ARCHITECTURES.get(value.architecture, value.architecture)
    variant = "" if (architecture, value.variant) in _SOLE_VARIANTS else value.variant
    return Platform(os=value.os, architecture=architecture, variant=variant)


def choose(image: str, candidates: Sequence[Candidate], wanted: Platform | None) -> Candidate:
    """The candidate that is meant; PlatformNotFound lists them all."""
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
    """Is it the one that was asked for without naming a variant?"""
    if offered is None or wanted.variant:
        return False
    return (offered.os, normalised(offered).architecture) == (wanted.os, wanted.architecture)


def _listed(platforms: Iterable[Platform | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(offered) if offered is not None else "unknown" for offered in platforms))


async def image_for(client: RegistryClient, reference: Reference, root: Manifest, wanted: Platform | None) -> Manifest:
    """The image manifest that `root` is, or has, for a platform."""
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
    """What an image's config says; None for artifacts, and for configs that name none."""
    config = manifest.config
    if config is None or config.media_type not in mediatype.IMAGE_CONFIGS:
        return None
    content = await client.get_bytes(repository, config.digest, limit_bytes=MANIFEST_MAX_BYTES)
    return Platform.read(load_object(content, where=f"image config {config.digest.short}"))
