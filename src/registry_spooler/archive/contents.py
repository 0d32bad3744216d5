"""The contents of an archive: every member by its path, and the documents among them.

Both ways of reading fill it: an indexed archive at once, and fetches documents when they are asked for; a streamed
one as members come by, and keeps the documents. What the images are is worked out from it alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Final

from registry_spooler.archive.limits import (
    KEPT_INDEX_MAX_BYTES,
    KEPT_MEMBER_MAX_BYTES,
    KEPT_TOTAL_MAX_BYTES,
    LINK_HOPS_MAX,
    MEMBERS_MAX,
    PARSED_DESCRIPTORS_MAX,
    PEEKED_TOTAL_MAX_BYTES,
)
from registry_spooler.archive.tar_header import Kind, Member, escapes, normalise, quoted, require_file, shown
from registry_spooler.errors import ArchiveError, ArchiveTruncated
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.progress import LeftOut

INDEXES: Final = frozenset({"manifest.json", "index.json"})
"""The documents that say what the images are."""

_FACE: Final = INDEXES | {"oci-layout", "repositories"}
"""What lies in an image archive's own folder."""


class Contents:
    """What an archive holds, but for directories. `complete`: its end marker has been seen."""

    def __init__(self, fetch: Callable[[Member], bytes] | None = None) -> None:
        self._members: dict[str, Member] = {}
        self._fetch = fetch
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0
        self._made: dict[Digest, bytes] = {}
        self._checked: dict[Digest, ArchiveError | None] = {}
        self._parsed: dict[tuple[Digest, str], Manifest | ArchiveError] = {}
        self._parsed_count = 0
        self._count = 0
        self._volumes: dict[str, int] = {}
        self._shared: str | None = None
        """The folder that all files so far have in common; None before the first."""
        self._peeked_bytes = 0
        self.complete = False
        self.left_out: list[LeftOut] = []
        """Entries of the archive's index that belong to none of its images."""

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    @property
    def is_empty(self) -> bool:
        """Return whether there is no file in it at all."""
        return not self._members

    def add(self, member: Member, volume: int = 1) -> None:
        """Take note of a member; of two with one name the later counts, as it does for tar.

        `volume` counts the tars of a concatenation: two of them with an index each are two archives.
        """
        self._count += 1
        if self._count > MEMBERS_MAX:
            raise ArchiveError(f"it has more than {MEMBERS_MAX:,} members, which no image archive has")
        path, earlier = member.path, self._members.get(member.path)
        if earlier and member.kind is Kind.HARDLINK and normalise(member.link) == path:
            return  # tar was told to pack a file twice
        if member.kind is Kind.DIRECTORY:
            return
        if posixpath.basename(path) in INDEXES and self._volumes.setdefault(path, volume) != volume:
            raise ArchiveError(
                "two archives are concatenated, and both have it; push each as a file of its own", where=shown(path)
            )
        self._forget(path)
        self._members[path] = member
        if _counts(member):
            folder = posixpath.dirname(path) if not escapes(path) else ""
            self._shared = folder if self._shared is None else _common(self._shared, folder)

    def keep(self, member: Member, content: bytes) -> None:
        """Remember a document's bytes."""
        self._kept[member.path] = content
        self._kept_bytes += len(content)

    def may_keep(self, member: Member) -> bool:
        """Return whether a member is within the limits of what is kept."""
        on_top = KEPT_INDEX_MAX_BYTES if posixpath.basename(member.path) in INDEXES else 0
        fits = self._kept_bytes + member.size <= KEPT_TOTAL_MAX_BYTES + on_top
        return member.kind is Kind.FILE and member.size <= _limit(member.path) and fits

    def _forget(self, path: str) -> None:
        if path in self._kept:
            self._kept_bytes -= len(self._kept.pop(path))
            self._checked.clear()
            self._parsed.clear()
            self._parsed_count = 0

    @property
    def root(self) -> str:
        """Return the folder of the image, with a `/` at its end: mostly none, else the one that all files share."""
        shared = self._shared
        if not shared or any(name in self._members for name in _FACE):
            return ""
        return f"{shared}/" if any(f"{shared}/{name}" in self._members for name in _FACE) else ""

    def resolve(self, path: str) -> Member | None:
        """Return the member that a path of the image means, links followed; None when it is not there."""
        at = start = normalise(self.root + path)
        for _ in range(LINK_HOPS_MAX):
            if escapes(at):
                raise ArchiveError("it leads out of the archive", where=shown(start))
            member = self._members.get(at)
            if member is None or member.kind not in (Kind.HARDLINK, Kind.SYMLINK):
                return member
            at = _target(member)
        raise ArchiveError("its links lead in a circle", where=shown(start))

    def find(self, digest: Digest) -> Member | None:
        """Return the member that holds a blob, as layouts (`blobs/…`), crane and apko name them, or None."""
        names = [f"blobs/{digest.algorithm}/{digest.hex}", str(digest)]
        names += [f"{digest.hex}{suffix}" for suffix in (".tar.gz", ".tar.zst", ".tar")]
        return next((member for name in names if (member := self.resolve(name)) is not None), None)

    def document(self, path: str, *, what: str = "") -> bytes:
        """Return the bytes of a document by its path; ArchiveError when it is missing or not to be believed.

        `what` it is, for a document whose path is the archive's own choice.
        """
        member = self.resolve(path)
        if member is None:
            raise self.missing(f"{what} {quoted(path)}" if what else shown(path))
        require_file(member)
        if member.size > _limit(path):
            raise ArchiveError(f"it claims {member.size:,} bytes, too many for such a document", where=shown(path))
        content = self._read(member)
        if content is None:
            raise ArchiveError("it is no JSON document, or one too many to be kept", where=shown(path))
        return content

    def content(self, digest: Digest) -> bytes | None:
        """Return the bytes of a manifest or a config by its digest, checked; None when they are not here."""
        if digest in self._made:
            return self._made[digest]
        member = self.find(digest)
        if member is None or member.kind is not Kind.FILE or member.size > KEPT_MEMBER_MAX_BYTES:
            return None
        content = self._read(member)
        if content is not None and (error := self._check(digest, content, member)) is not None:
            raise error
        return content

    def peek(self, digest: Digest, limit_bytes: int) -> bytes | None:
        """Return the unchecked bytes of a small blob that may be of interest; None when it is not here, or too large.

        Nothing is kept, and after PEEKED_TOTAL_MAX_BYTES of one archive there is nothing more.
        """
        member = self.find(digest)
        if member is None or member.kind is not Kind.FILE or member.size > limit_bytes:
            return None
        if member.path in self._kept or self._fetch is None:
            return self._kept.get(member.path)
        self._peeked_bytes += member.size
        return self._fetch(member) if self._peeked_bytes <= PEEKED_TOTAL_MAX_BYTES else None

    def _check(self, digest: Digest, content: bytes, member: Member) -> ArchiveError | None:
        """Compare a document with its digest, once: an index may name it a thousand times."""
        if digest not in self._checked:
            error = ArchiveError("its content does not have the digest that it is named by", where=shown(member.path))
            self._checked[digest] = error if Digest.of(content, digest.algorithm) != digest else None
        return self._checked[digest]

    def manifest(self, descriptor: Descriptor) -> Manifest | None:
        """Return the manifest that a descriptor points to, read once and kept; None when it is not here.

        ArchiveError when it cannot be read. Up to PARSED_DESCRIPTORS_MAX descriptors are kept.
        """
        key = (descriptor.digest, descriptor.media_type)
        if key not in self._parsed:
            content = self.content(descriptor.digest)
            if content is None:
                return None
            self._remember(key, _parse(content, descriptor))
        parsed = self._parsed[key]
        if isinstance(parsed, ArchiveError):
            raise parsed
        return parsed

    def _remember(self, key: tuple[Digest, str], parsed: Manifest | ArchiveError) -> None:
        count = _descriptors(parsed)
        while self._parsed and self._parsed_count + count > PARSED_DESCRIPTORS_MAX:
            self._parsed_count -= _descriptors(self._parsed.pop(next(iter(self._parsed))))
        self._parsed[key] = parsed
        self._parsed_count += count

    def make(self, digest: Digest, content: bytes) -> None:
        """Let `content` find bytes that no member is named by: an index.json that is itself an image's index."""
        self._made[digest] = content

    def _read(self, member: Member) -> bytes | None:
        if not member.size:
            return b""
        if member.path not in self._kept and self._fetch is not None:
            if not self.may_keep(member):
                raise ArchiveError(f"its documents add up to more than {KEPT_TOTAL_MAX_BYTES >> 20} MiB")
            self.keep(member, self._fetch(member))
        return self._kept.get(member.path)

    def missing(self, what: str) -> ArchiveError:
        """Return the error for something that is missing: incomplete, when the archive's end is not marked."""
        return self.lacking(f"{what} is missing")

    def lacking(self, sentence: str) -> ArchiveError:
        """Return the error for an archive that lacks something: incomplete, when its end is not marked."""
        if self.complete:
            return ArchiveError(sentence)
        return ArchiveTruncated(f"{sentence}; and it has no end marker, as if it were cut off")


def _parse(content: bytes, descriptor: Descriptor) -> Manifest | ArchiveError:
    try:
        return Manifest.parse(content, media_type=descriptor.media_type, where=f"manifest {descriptor.digest.short}")
    except ArchiveError as exc:
        return exc


def _descriptors(parsed: Manifest | ArchiveError) -> int:
    return 1 if isinstance(parsed, ArchiveError) else 1 + len(parsed.layers) + len(parsed.manifests)


def _limit(path: str) -> int:
    return KEPT_INDEX_MAX_BYTES if posixpath.basename(path) in INDEXES else KEPT_MEMBER_MAX_BYTES


def _counts(member: Member) -> bool:
    """Return whether it is one of the archive's files: a Mac adds some of its own beside them."""
    name = posixpath.basename(member.path)
    return not name.startswith("._") and name != ".DS_Store"


def _common(shared: str, folder: str) -> str:
    """Return the folder that two folders have in common; empty when there is none."""
    if folder == shared or folder.startswith(f"{shared}/"):
        return shared
    return posixpath.commonpath((shared, folder)) if shared and folder else ""


def _target(link: Member) -> str:
    if link.kind is Kind.HARDLINK:
        return normalise(link.link)
    if link.link.startswith("/"):
        raise ArchiveError("it is a link that leads out of the archive", where=shown(link.path))
    return normalise(f"{posixpath.dirname(link.path)}/{link.link}")
