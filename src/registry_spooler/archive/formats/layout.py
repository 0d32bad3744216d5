"""Which images an archive holds: OCI layouts, docker archives, and what is both.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md

An OCI layout wins over the manifest.json beside it, since its manifests can be pushed byte for byte. There are three
exceptions:

1. Docker 25.0 wrote layouts whose manifests have their layers in a random order, and left images without a name out of
   the index (https://github.com/moby/moby/pull/47161). What the two do not agree on is taken from manifest.json.
2. An index that names nothing counts as none: it is what docker 25.0 wrote for a single image without a name.
3. Docker's classic store has plain layers. Such an image is read both ways, and whoever pushes it chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from registry_spooler.archive import detect
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.formats.docker import is_docker_index, read_docker
from registry_spooler.archive.formats.image import ArchiveImage, DockerImage, Names, OciImage
from registry_spooler.archive.formats.relations import manifests_of, names_of, referrers_of, sort_out
from registry_spooler.archive.tar_header import blob_digest
from registry_spooler.errors import ArchiveError, ArchiveTruncated
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Manifest, load_json, load_object


def read_layout(contents: Contents) -> tuple[OciImage, ...]:
    """Return the images of an OCI layout, in the order of its index; equal digests are one image with several names."""
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
    """Return whether index.json is an index all of whose manifests are here."""
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
    """Return whether the index is one image's: manifests for different platforms, all called the same or nothing."""
    platforms = [entry.platform for entry in entries]
    same_name = len({(names.names, names.tags) for names in map(names_of, entries)}) == 1
    distinct = len({str(platform) for platform in platforms}) == len(entries)
    return len(entries) > 1 and same_name and distinct and None not in platforms


def _all_names(entries: list[Descriptor]) -> Names:
    called = Names()
    for entry in entries:
        called |= names_of(entry)
    return called


Image = TypeVar("Image", OciImage, DockerImage)


def find_images(contents: Contents) -> tuple[ArchiveImage, ...]:
    """Return all images of an archive; ArchiveError, in a sentence for the user, when it holds none."""
    has_oci, has_docker = _has_layout(contents), contents.resolve("manifest.json") is not None
    if has_oci and has_docker and is_docker_index(contents.document("manifest.json")):
        if is_empty_index(contents):
            return _merge(read_docker(contents))
        return _cross_check(contents, _merge(read_layout(contents)))
    if has_oci:
        return _merge(read_layout(contents))
    if has_docker:
        return _merge(read_docker(contents))
    if contents.is_empty:
        raise ArchiveTruncated("it is a tar archive without a file in it")
    raise contents.lacking(detect.describe_contents(contents))


def _has_layout(contents: Contents) -> bool:
    """Return whether it is an OCI layout: by its marker, or (apko) an index whose manifests are all here."""
    has_marker, has_docker = contents.resolve("oci-layout") is not None, contents.resolve("manifest.json") is not None
    if contents.resolve("index.json") is None:
        return has_marker and not has_docker
    return has_marker or not has_docker or holds_all(contents)


def _merge(images: Sequence[Image]) -> tuple[Image, ...]:
    """Make one image of those that are the same, with all their names."""
    same: dict[object, list[Image]] = {}
    for image in images:
        same.setdefault(image.identity, []).append(image)
    return tuple(
        replace(found[-1], called=Names.union(image.called for image in found)) if len(found) > 1 else found[0]
        for found in same.values()
    )


def _cross_check(contents: Contents, layout: Sequence[OciImage]) -> tuple[ArchiveImage, ...]:
    """Return the layout's images, but for those that manifest.json knows better."""
    images: list[ArchiveImage] = list(layout)
    places = {config: at for at, image in enumerate(layout) for config in _configs(contents, image)}
    taken = {name for image in images for name in image.called.names}
    for image in _docker_images(contents):
        place = places.get(image.config.digest)
        if place is None:
            if taken.isdisjoint(image.called.names):
                images.append(image)
                taken.update(image.called.names)
        elif _contradicts(contents, layout[place], image):
            images[place] = replace(image, called=layout[place].called | image.called)
        elif _is_plain(contents, layout[place], image):
            images[place] = replace(image, called=layout[place].called | image.called, as_oci=layout[place])
    return tuple(images)


def _docker_images(contents: Contents) -> tuple[DockerImage, ...]:
    try:
        return _merge(read_docker(contents))
    except ArchiveError:
        return ()  # it speaks of what was left out on purpose; the layout, which is pushed, is checked by itself


def _configs(contents: Contents, image: OciImage) -> set[Digest]:
    return {manifest.config.digest for manifest in manifests_of(contents, image.root) if manifest.config is not None}


def _contradicts(contents: Contents, image: OciImage, docker: DockerImage) -> bool:
    """Return whether a single manifest lists other layers than manifest.json, where both go by digest."""
    expected = [blob_digest(layer.path) for layer in docker.layers]
    if image.root.is_index or None in expected:
        return False
    return any(
        [layer.digest for layer in manifest.layers] != expected for manifest in manifests_of(contents, image.root)
    )


def _is_plain(contents: Contents, image: OciImage, docker: DockerImage) -> bool:
    """Return whether it is one manifest over plain layers that are all here, and no signature speaks of it."""
    if image.root.is_index or image.referrers or any(layer.member is None for layer in docker.layers):
        return False
    (manifest,) = manifests_of(contents, image.root)
    return any(layer.media_type in mediatype.PLAIN_LAYERS for layer in manifest.layers)
