"""OCI layouts: index.json, and the images it names.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from registry_spooler import mediatype
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.image import Names, OciImage
from registry_spooler.errors import ArchiveError, InvalidReference
from registry_spooler.manifest import Descriptor, Manifest, load_object
from registry_spooler.reference import ImageName, check_tag

_CONTAINERD_NAME: Final = "io.containerd.image.name"
_CONTAINERD_SUBJECT: Final = "io.containerd.manifest.subject"
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_DEPTH_MAX: Final = 4
_MANIFESTS_MAX: Final = 1000


def read_layout(contents: Contents) -> tuple[OciImage, ...]:
    """The images of an OCI layout, in the order of its index; equal digests are one image with several names."""
    if contents.resolve("oci-layout") is not None:
        _check_version(contents)
    index = _index(contents)
    if not index.is_index:
        raise ArchiveError("it is an image manifest, not an index", where="index.json")
    entries = [entry for entry in index.manifests if not _speaks_of_another(entry)]
    if not entries:
        raise ArchiveError("it names no image", where="index.json")
    for entry in entries:
        if not entry.is_index and not entry.is_manifest:
            raise ArchiveError(
                f"it names something of type {entry.media_type[:100]!r}, which is no image", where="index.json"
            )
    if _is_flat(entries):
        contents.make(index.digest, index.content)
        return (OciImage(root=index.descriptor(), called=_all_names(entries)),)
    return tuple(OciImage(root=entry, called=_names(entry)) for entry in entries)


def holds_all(contents: Contents) -> bool:
    """Is index.json an index, all of whose manifests are here?"""
    try:
        index = _index(contents)
        return bool(index.manifests) and all(contents.find(entry.digest) is not None for entry in index.manifests)
    except ArchiveError:
        return False


def manifests_of(contents: Contents, root: Descriptor) -> Iterable[Manifest]:
    """The image manifests below a root that the archive holds, the root's own included."""
    pending, seen = [(root, 0)], 0
    while pending and seen < _MANIFESTS_MAX:
        descriptor, depth = pending.pop()
        seen += 1
        content = contents.content(descriptor.digest)
        if content is None:
            continue
        manifest = Manifest.parse(content, media_type=descriptor.media_type, where=str(descriptor.digest))
        if not manifest.is_index:
            yield manifest
        elif depth < _DEPTH_MAX:
            pending += [(child, depth + 1) for child in reversed(manifest.manifests)]


def _index(contents: Contents) -> Manifest:
    return Manifest.parse(contents.document("index.json"), media_type=mediatype.OCI_INDEX, where="index.json")


def _check_version(contents: Contents) -> None:
    version = load_object(contents.document("oci-layout"), where="oci-layout").get("imageLayoutVersion")
    if not str(version).startswith("1."):
        raise ArchiveError(f"it is of version {str(version)[:40]!r}; version 1 can be read", where="oci-layout")


def _speaks_of_another(entry: Descriptor) -> bool:
    """An attestation or a referrer (a signature) is not an image of its own."""
    return entry.is_attestation or _CONTAINERD_SUBJECT in entry.annotations


def _is_flat(entries: list[Descriptor]) -> bool:
    """Is the index one image's own: several manifests, each for another platform, all called the same or nothing?"""
    platforms = [entry.platform for entry in entries]
    same_name = len({(names.names, names.tags) for names in map(_names, entries)}) == 1
    distinct = len({str(platform) for platform in platforms}) == len(entries)
    return len(entries) > 1 and same_name and distinct and None not in platforms


def _all_names(entries: list[Descriptor]) -> Names:
    called = Names()
    for entry in entries:
        called |= _names(entry)
    return called


def _names(entry: Descriptor) -> Names:
    """In two ways: containerd writes the full name, all others one name that is full or a tag."""
    name = entry.annotations.get(_CONTAINERD_NAME) or entry.annotations.get(_REF_NAME) or ""
    try:
        if "/" in name or ":" in name:
            return Names(names=(ImageName.parse(name),))
        return Names(tags=(check_tag(name),)) if name else Names()
    except InvalidReference:
        return Names()  # whatever it is, nobody can ask for it by this name
