"""OCI layouts: index.json, and the images it names.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

from registry_spooler import mediatype
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.graph import names_of, referrers_of, sort_out
from registry_spooler.archive.image import Names, OciImage
from registry_spooler.errors import ArchiveError
from registry_spooler.manifest import Descriptor, Manifest, load_json, load_object


def read_layout(contents: Contents) -> tuple[OciImage, ...]:
    """The images of an OCI layout, in the order of its index; equal digests are one image with several names."""
    if contents.resolve("oci-layout") is not None:
        _check_version(contents)
    index = _index(contents)
    if not index.is_index:
        raise ArchiveError("it is an image manifest, not an index", where="index.json")
    if not index.manifests:
        raise ArchiveError("it names no image", where="index.json")
    found = sort_out(contents, index.manifests)
    entries = found.images
    for entry in entries:
        if not entry.is_index and not entry.is_manifest:
            raise ArchiveError(
                f"it names something of type {entry.media_type[:100]!r}, which is no image", where="index.json"
            )
    contents.left_out = list(dict.fromkeys(found.left_out))
    if _is_flat(entries):
        contents.make(index.digest, index.content)
        root = index.descriptor()
        # BuildKit's attestations are children of this index like the images.
        referrers = tuple(r for r in referrers_of(contents, root, found) if not r.entry.is_attestation)
        return (OciImage(root=root, called=_all_names(entries), referrers=referrers),)
    return tuple(
        OciImage(root=entry, called=names_of(entry), referrers=referrers_of(contents, entry, found))
        for entry in entries
    )


def is_empty_index(contents: Contents) -> bool:
    """Return whether index.json names nothing: no list, an empty one, or no content at all."""
    content = contents.document("index.json") if contents.resolve("index.json") is not None else b""
    if content.strip() in (b"", b"null"):
        return True
    document = load_json(content, where="index.json")
    return isinstance(document, dict) and not document.get("manifests")


def holds_all(contents: Contents) -> bool:
    """Is index.json an index, all of whose manifests are here?"""
    try:
        index = _index(contents)
        return bool(index.manifests) and all(contents.find(entry.digest) is not None for entry in index.manifests)
    except ArchiveError:
        return False


def _index(contents: Contents) -> Manifest:
    return Manifest.parse(contents.document("index.json"), media_type=mediatype.OCI_INDEX, where="index.json")


def _check_version(contents: Contents) -> None:
    version = load_object(contents.document("oci-layout"), where="oci-layout").get("imageLayoutVersion")
    if not str(version).startswith("1."):
        raise ArchiveError(f"it is of version {str(version)[:40]!r}; version 1 can be read", where="oci-layout")


def _is_flat(entries: list[Descriptor]) -> bool:
    """Is the index one image's own: several manifests, each for another platform, all called the same or nothing?"""
    platforms = [entry.platform for entry in entries]
    same_name = len({(names.names, names.tags) for names in map(names_of, entries)}) == 1
    distinct = len({str(platform) for platform in platforms}) == len(entries)
    return len(entries) > 1 and same_name and distinct and None not in platforms


def _all_names(entries: list[Descriptor]) -> Names:
    called = Names()
    for entry in entries:
        called |= names_of(entry)
    return called
