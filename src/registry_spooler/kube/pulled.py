"""A pulled archive, checked as it comes: what a pod sends is not believed.

Everything in it is named by a digest, or says what the rest is: `index.json` and manifests of an OCI layout, the
`manifest.json` of a docker archive. Each member's bytes are compared with its name, and at the end all that is named
has to be there. What is listed beside the image (signatures, SBOMs) has to speak of it. Memory is bounded: blobs pass
by, only documents are kept. What a tag means is still up to the registry; what a digest means is not (see `fetching`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError
from registry_spooler.kube.tarstream import NotAsPulled, TarStream
from registry_spooler.manifest import (
    CONTAINERD_SUBJECT,
    MANIFEST_MAX_BYTES,
    Descriptor,
    Manifest,
    load_json,
    load_object,
)
from registry_spooler.reference import Reference

if TYPE_CHECKING:
    from typing_extensions import Buffer

KEPT_MAX_BYTES: Final = 64 << 20
"""All documents of one image."""
MEMBERS_MAX: Final = 100_000

_INDEX: Final = "index.json"
_DOCKER_INDEX: Final = "manifest.json"
_DOCUMENTS: Final = frozenset({_INDEX, _DOCKER_INDEX, "oci-layout"})
_IMAGE_NAME: Final = "io.containerd.image.name"
_NAMED: Final = re.compile(
    r"blobs/(?P<algorithm>sha256|sha512)/(?P<blob>[0-9a-f]+)"
    r"|(?P<of_config>sha256|sha512):(?P<config>[0-9a-f]+)"
    r"|(?P<layer>[0-9a-f]{64}|[0-9a-f]{128})\.tar(?:\.gz|\.zst)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What an archive was found to hold: the digests of an OCI layout's images, or a docker archive's parts."""

    images: frozenset[Digest] = frozenset()
    referrers: frozenset[Digest] = frozenset()
    """The manifests that speak of the images."""
    config: Digest | None = None
    layers: tuple[Digest, ...] = ()


class PulledArchive:
    """Feed it the archive, then `finish`. All methods raise NotAsPulled."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._tar = TarStream(self)
        self._sizes: dict[str, int] = {}
        self._digests: dict[str, Digest] = {}
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0
        self._path = ""
        self._hash = hashlib.sha256()
        self._content: bytearray | None = None

    def feed(self, data: Buffer) -> None:
        """Take the next bytes."""
        self._tar.feed(data)

    def begin(self, path: str, size: int) -> None:
        """See `Members`."""
        if path in self._sizes or len(self._sizes) >= MEMBERS_MAX:
            raise NotAsPulled(f"it holds {path[:200]!r} twice, or too much")
        digest = _digest_of(path)
        if digest is None and path not in _DOCUMENTS:
            raise NotAsPulled(f"it holds {path[:200]!r}, which is no part of an image")
        self._path, self._sizes[path] = path, size
        self._hash = hashlib.new(digest.algorithm if digest is not None else "sha256")
        # A layer of a docker archive has an ending; of a layout's blobs the small ones may be manifests.
        keeps = not path.endswith((".tar", ".tar.gz", ".tar.zst")) and size <= MANIFEST_MAX_BYTES
        self._content = bytearray() if keeps and self._kept_bytes + size <= KEPT_MAX_BYTES else None

    def take(self, piece: memoryview) -> None:
        """See `Members`."""
        self._hash.update(piece)
        if self._content is not None:
            self._content += piece

    def end(self) -> None:
        """See `Members`."""
        path, digest = self._path, _digest_of(self._path)
        if digest is not None:
            if self._hash.hexdigest() != digest.hex:
                raise NotAsPulled(f"{path} does not have the digest that it is named by")
            self._digests[path] = digest
        if self._content is not None and _may_be_document(path, self._content):
            self._kept[path] = bytes(self._content)
            self._kept_bytes += len(self._content)

    def finish(self) -> Pulled:
        """Return what it holds, when nothing is missing."""
        self._tar.close()
        try:
            return self._docker() if _DOCKER_INDEX in self._kept else self._layout()
        except ArchiveError as exc:
            raise NotAsPulled(str(exc)) from exc

    def _docker(self) -> Pulled:
        items = load_json(self._kept[_DOCKER_INDEX], where=_DOCKER_INDEX)
        item = items[0] if isinstance(items, list) and len(items) == 1 else None
        if not isinstance(item, dict) or not isinstance(item.get("Layers"), list):
            raise NotAsPulled("its manifest.json does not describe one image")
        for name in item.get("RepoTags") or ():
            self._check_name(name)
        config_path, sources = str(item.get("Config")), item.get("LayerSources")
        config = self._digests.get(config_path)
        if config is None:
            raise NotAsPulled("its config is missing")
        absent = {str(value.get("digest")) for value in sources.values()} if isinstance(sources, dict) else set()
        layers = tuple(self._layer(path, absent) for path in item["Layers"])
        if len(layers) != len(_diff_ids(self._kept.get(config_path, b""))):
            raise NotAsPulled("it does not have as many layers as its config names")
        return Pulled(config=config, layers=layers)

    def _layer(self, path: object, absent: set[str]) -> Digest:
        digest = _digest_of(str(path))
        if digest is None or (path not in self._digests and str(digest) not in absent):
            raise NotAsPulled(f"the layer {str(path)[:200]!r} is missing")
        return digest

    def _layout(self) -> Pulled:
        index = load_object(self._kept.get(_INDEX, b""), where=_INDEX)
        entries = index.get("manifests")
        roots = [Descriptor.read(entry, where=_INDEX) for entry in entries] if isinstance(entries, list) else []
        images, referrers = set[Digest](), dict[Digest, set[Digest]]()
        for root in roots:
            if _IMAGE_NAME in root.annotations:
                self._check_name(root.annotations[_IMAGE_NAME])
            below = self._check_manifest(root)
            if (subject := self._subject(root)) is None:
                images.add(root.digest)
                known = below
            else:
                referrers.setdefault(subject, set()).update(below)
        if len(images) != 1:
            raise NotAsPulled(f"it names {len(images)} images, not one")
        self._check_subjects(referrers, known)
        return Pulled(images=frozenset(images), referrers=frozenset(root.digest for root in roots) - images)

    def _subject(self, root: Descriptor) -> Digest | None:
        """Return what an entry says that it speaks of, or None for an image."""
        noted = root.annotations.get(CONTAINERD_SUBJECT)
        if noted is None:
            return None
        if _IMAGE_NAME in root.annotations:
            raise NotAsPulled(f"{root.digest} is called like the image, and says that it speaks of another")
        manifest = self._manifest(root)
        if manifest.subject is not None and str(manifest.subject.digest) != noted:
            raise NotAsPulled(f"{root.digest} speaks of {manifest.subject.digest}, not of {noted[:200]}")
        try:
            return Digest.parse(noted)
        except ValueError:
            raise NotAsPulled(f"{root.digest} speaks of {noted[:200]!r}") from None

    def _check_subjects(self, referrers: dict[Digest, set[Digest]], image: set[Digest]) -> None:
        """See that all speaks of the image, of a part of it, or of what does."""
        waiting = list(image)
        while waiting:
            waiting += referrers.pop(waiting.pop(), ())
        if referrers:
            raise NotAsPulled(f"something in it speaks of {next(iter(referrers))}, which is no part of the image")

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        content = self._kept.get(_blob_path(descriptor), b"")
        return Manifest.parse(content, media_type=descriptor.media_type, where=str(descriptor.digest))

    def _check_manifest(self, root: Descriptor) -> set[Digest]:
        """See that all is there that a manifest names, but for an index's children that the registry lacks as well.

        Returns the digests of all manifests, those that are lacking included.
        """
        waiting, seen = [root], set[Digest]()
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in seen or not (descriptor.is_index or descriptor.is_manifest):
                continue
            seen.add(descriptor.digest)
            path = _blob_path(descriptor)
            if path not in self._digests and descriptor is not root:
                continue
            self._check_blob(descriptor)
            manifest = self._manifest(descriptor)
            waiting.extend(manifest.manifests)
            for blob in manifest.blobs:
                if not (blob.is_foreign and _blob_path(blob) not in self._digests):
                    self._check_blob(blob)
        return seen

    def _check_blob(self, descriptor: Descriptor) -> None:
        path = _blob_path(descriptor)
        if path not in self._digests:
            raise NotAsPulled(f"{descriptor.digest} is missing")
        if self._sizes[path] != descriptor.size:
            raise NotAsPulled(f"{descriptor.digest} does not have the size that is told of it")

    def _check_name(self, name: object) -> None:
        """See that whoever loads it replaces no other image."""
        if str(name).rpartition(":")[0] != self._reference.repository:
            raise NotAsPulled(f"it calls itself {str(name)[:200]!r}")


def _digest_of(path: str) -> Digest | None:
    """Return the digest that a member is named by."""
    match = _NAMED.fullmatch(path)
    if match is None:
        return None
    algorithm = match["algorithm"] or match["of_config"] or ("sha256" if len(match["layer"]) == 64 else "sha512")
    try:
        return Digest.parse(f"{algorithm}:{match['blob'] or match['config'] or match['layer']}")
    except ValueError:
        return None


def _blob_path(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"


def _may_be_document(path: str, content: bytearray) -> bool:
    return path in _DOCUMENTS or bytes(content[:1]).strip() in (b"{", b"")


def _diff_ids(config: bytes) -> list[Any]:
    rootfs = load_object(config, where="the image's config").get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    return diff_ids if isinstance(diff_ids, list) else []
