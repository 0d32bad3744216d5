"""The graph of an OCI layout: which entries of its index are images, and which belong to another.

Most tools list images alone. BuildKit and containerd may list attestations and referrers beside them, cosign its
signatures, and oras every manifest: the children of an index, and what refers to another by its `subject`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from registry_spooler.archive.contents import Contents
from registry_spooler.archive.image import Names
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError, InvalidReference
from registry_spooler.manifest import Descriptor, Manifest
from registry_spooler.reference import ImageName, check_tag

_CONTAINERD_NAME: Final = "io.containerd.image.name"
_CONTAINERD_SUBJECT: Final = "io.containerd.manifest.subject"
_COSIGN_KIND: Final = "kind"
_COSIGN_SIGNATURES: Final = frozenset(f"dev.cosignproject.cosign/{kind}" for kind in ("sigs", "atts"))
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_DEPTH_MAX: Final = 4
_MANIFESTS_MAX: Final = 1000

Referrers = dict[Digest, list[Descriptor]]
"""Entries that speak of another, by the digest of what they speak of."""


def names_of(entry: Descriptor) -> Names:
    """What an entry is called: containerd writes the full name, all others one name that is full or a tag."""
    name = entry.annotations.get(_CONTAINERD_NAME) or entry.annotations.get(_REF_NAME) or ""
    try:
        if "/" in name or ":" in name:
            return Names(names=(ImageName.parse(name),))
        return Names(tags=(check_tag(name),)) if name else Names()
    except InvalidReference:
        return Names()  # whatever it is, nobody can ask for it by this name


def sort_out(contents: Contents, entries: Sequence[Descriptor]) -> tuple[list[Descriptor], Referrers]:
    """The entries that are images of their own, and those that refer to another; all, when none is an image."""
    distinct = {entry.digest: entry for entry in entries}.values()
    found = {entry.digest: manifest for entry in distinct if (manifest := _manifest(contents, entry)) is not None}
    children = {child.digest for manifest in found.values() for child in manifest.manifests}
    images, referrers = [], Referrers()
    for entry in entries:
        subject = found[entry.digest].subject if entry.digest in found else None
        if subject is not None:
            referrers.setdefault(subject.digest, []).append(entry)
        is_part = not names_of(entry) and (subject is not None or entry.digest in children)
        if not is_part and not _speaks_of_another(entry):
            images.append(entry)
    return images or list(entries), referrers


def referrers_of(contents: Contents, root: Descriptor, referrers: Referrers) -> tuple[Descriptor, ...]:
    """What refers to an image, to one of its platforms, or to one of its referrers."""
    if not referrers:
        return ()
    pending = [root.digest, *(manifest.digest for manifest in manifests_of(contents, root))]
    belonging: dict[Digest, Descriptor] = {}
    while pending:
        for entry in referrers.get(pending.pop(), ()):
            if entry.digest not in belonging:
                belonging[entry.digest] = entry
                pending.append(entry.digest)
    return tuple(belonging.values())


def manifests_of(contents: Contents, root: Descriptor) -> Iterable[Manifest]:
    """The image manifests below a root that the archive holds, the root's own included."""
    pending, seen = [(root, 0)], 0
    while pending and seen < _MANIFESTS_MAX:
        descriptor, depth = pending.pop()
        seen += 1
        manifest = contents.manifest(descriptor)
        if manifest is None:
            continue
        if not manifest.is_index:
            yield manifest
        elif depth < _DEPTH_MAX:
            children = {child.digest: child for child in reversed(manifest.manifests)}
            pending += [(child, depth + 1) for child in children.values()]


def _manifest(contents: Contents, entry: Descriptor) -> Manifest | None:
    """An entry's manifest, if it can be read; what is wrong with it is said when it is pushed."""
    try:
        return contents.manifest(entry)
    except ArchiveError:
        return None


def _speaks_of_another(entry: Descriptor) -> bool:
    annotations = entry.annotations
    is_signature = annotations.get(_COSIGN_KIND) in _COSIGN_SIGNATURES
    return entry.is_attestation or _CONTAINERD_SUBJECT in annotations or is_signature
