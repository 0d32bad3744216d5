"""A pulled archive, checked as it comes: what a pod sends is not believed.

It reads what `registry-client pull` writes and nothing else: regular files, with GNU's long names, and an end marker.

Everything in it is named by a digest, or says what the rest is: `index.json` and manifests of an OCI layout, the
`manifest.json` of a docker archive. Each member's bytes are compared with its name, and at the end all that is named
has to be there. What is listed beside the image (signatures, SBOMs) has to speak of it. Memory is bounded: blobs pass
by, only documents are kept. What a tag means is still up to the registry; what a digest means is not (see fetch.py).
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Protocol

from registry_spooler.aio import in_thread
from registry_spooler.archive.tar_header import BLOCK_BYTES, ZERO_BLOCK, NotAHeader, padded, read_header
from registry_spooler.errors import ArchiveError
from registry_spooler.oci import mediatype
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.layout_writer import blob_path
from registry_spooler.oci.manifest import (
    CONTAINERD_SUBJECT,
    IMAGE_NAME,
    MANIFEST_MAX_BYTES,
    Descriptor,
    Manifest,
    load_json,
    load_object,
)
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.image_tree import Candidate, choose
from registry_spooler.pull.pulled_archives import Unpacking, Writes

if TYPE_CHECKING:
    from typing_extensions import Buffer


NAME_MAX_BYTES: Final = 4096
_FILES: Final = (b"0", b"\0")
_LONG_NAME: Final = b"L"


class NotAsPulled(ValueError):
    """What came is not what a pull writes; the reason is the message."""


class Members(Protocol):
    """Takes what is in the tar. Each method may raise NotAsPulled."""

    def begin(self, path: str, size: int) -> None:
        """A member begins."""

    def take(self, piece: memoryview) -> None:
        """The next bytes of it."""

    def end(self) -> None:
        """It is complete."""


class TarStream:
    """Feeds a tar's members to `members`. It holds no more than a header and a name."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._block = bytearray()
        self._left = 0
        self._padding = 0
        self._in_member = False
        self._name: bytearray | None = None
        self._zero_blocks = 0

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the tar."""
        view = memoryview(data).cast("B")
        while view:
            if self._left:
                view = self._feed_content(view)
            elif self._padding:
                taken = min(self._padding, len(view))
                self._padding -= taken
                view = view[taken:]
            else:
                taken = min(BLOCK_BYTES - len(self._block), len(view))
                self._block += view[:taken]
                view = view[taken:]
                if len(self._block) == BLOCK_BYTES:
                    self._read_block()

    def close(self) -> None:
        """Take note that no more comes."""
        if self._zero_blocks < 2 or self._block or self._left or self._padding:
            raise NotAsPulled("it has no end")

    def _feed_content(self, view: memoryview) -> memoryview:
        piece = view[: self._left]
        self._left -= len(piece)
        if self._in_member:
            self._members.take(piece)
            if not self._left:
                self._end_member()
        elif self._name is not None:
            self._name += piece
        return view[len(piece) :]

    def _read_block(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        if block == ZERO_BLOCK:
            self._zero_blocks += 1
            return
        if self._zero_blocks:
            raise NotAsPulled("there is something behind its end")
        try:
            header = read_header(block)
        except NotAHeader as exc:
            raise NotAsPulled(str(exc)) from exc
        self._left, self._padding = header.size, padded(header.size) - header.size
        if header.type == _LONG_NAME and header.size <= NAME_MAX_BYTES:
            self._name = bytearray()
        elif header.type in _FILES:
            self._begin_member(header.name)
        else:
            raise NotAsPulled("it holds something that is no file")

    def _begin_member(self, name: bytes) -> None:
        if self._name is not None:
            name, self._name = bytes(self._name).partition(b"\0")[0], None
        self._in_member = True
        self._members.begin(name.decode("utf-8", "backslashreplace"), self._left)
        if not self._left:
            self._end_member()

    def _end_member(self) -> None:
        self._in_member = False
        self._members.end()


KEPT_MAX_BYTES: Final = 64 << 20
"""All documents of one image."""
MEMBERS_MAX: Final = 100_000

_INDEX: Final = "index.json"
_DOCKER_INDEX: Final = "manifest.json"
_DOCUMENTS: Final = frozenset({_INDEX, _DOCKER_INDEX, "oci-layout"})
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
        if len(layers) != len(ImageConfig.parse(self._kept.get(config_path, b"")).diff_ids):
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
            if IMAGE_NAME in root.annotations:
                self._check_name(root.annotations[IMAGE_NAME])
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
        if IMAGE_NAME in root.annotations:
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
        content = self._kept.get(blob_path(descriptor.digest), b"")
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
            path = blob_path(descriptor.digest)
            if path not in self._digests and descriptor is not root:
                continue
            self._check_blob(descriptor)
            manifest = self._manifest(descriptor)
            waiting.extend(manifest.manifests)
            for blob in manifest.blobs:
                if not (blob.is_foreign and blob_path(blob.digest) not in self._digests):
                    self._check_blob(blob)
        return seen

    def _check_blob(self, descriptor: Descriptor) -> None:
        path = blob_path(descriptor.digest)
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


def _may_be_document(path: str, content: bytearray) -> bool:
    return path in _DOCUMENTS or bytes(content[:1]).strip() in (b"{", b"")


async def unpack(archive: BinaryIO, reference: Reference, output: Writes) -> None:
    """Write the file to `output`, decompressed and checked against its diff ID.

    NotOneFile when the image has several layers, PlatformNotFound, WrongContent, ArchiveError.
    """
    await in_thread(archive.seek, 0)
    with await in_thread(_open, archive) as tar:
        manifest = await in_thread(_image, tar, reference)
        config = manifest.image_config
        content = await in_thread(_document, tar, blob_path(config.digest)) if config is not None else None
        unpacking = Unpacking(reference, output, manifest, content)
        with _member(tar, blob_path(unpacking.layer.digest)) as blob:
            while piece := await in_thread(blob.read, PIECE_BYTES):
                await unpacking.write(piece)
        unpacking.finish()


def _open(archive: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=archive, mode="r:")


def _image(tar: tarfile.TarFile, reference: Reference) -> Manifest:
    index = Manifest.parse(_document(tar, _INDEX), media_type=mediatype.OCI_INDEX, where=_INDEX)
    root = _manifest(tar, index.manifests[0])
    if not root.is_index:
        return root
    names = set(tar.getnames())
    candidates = [
        Candidate(child.platform, child)
        for child in root.manifests
        if child.is_manifest and not child.is_attestation and blob_path(child.digest) in names
    ]
    return _manifest(tar, choose(str(reference), candidates, None).descriptor)


def _manifest(tar: tarfile.TarFile, descriptor: Descriptor) -> Manifest:
    content = _document(tar, blob_path(descriptor.digest))
    return Manifest.parse(content, media_type=descriptor.media_type, where=str(descriptor.digest))


def _document(tar: tarfile.TarFile, path: str) -> bytes:
    with _member(tar, path) as file:
        return file.read()


def _member(tar: tarfile.TarFile, path: str) -> IO[bytes]:
    try:
        file = tar.extractfile(path)
    except KeyError:
        file = None
    if file is None:
        raise NotAsPulled(f"{path} is missing")
    return file
