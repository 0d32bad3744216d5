"""How the entries of an OCI layout belong together: which are images, and which speak of another.

There are two families. A manifest with a `subject` says it itself, and is pushed by its digest. All others are found
by cosign's tag for them, `sha256-<digest>.sig`, `.att` or `.sbom`, beside the image; a manifest with a subject may have
such a tag as well. Here they are told by what the layout's writer noted:

- `kind`: `cosign save` (https://github.com/sigstore/cosign/blob/main/pkg/oci/layout/index.go) and Hauler, the latter
  under two prefixes. Neither notes the image's digest: Hauler repeats the image's name, `cosign save` writes one image
  to a layout. What is signed has the digest in it.
- `vnd.docker.reference.digest`: BuildKit
  (https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md).
- `io.containerd.manifest.subject`: containerd, and docker since 29.
- a name that is itself cosign's tag: whoever copies all tags of a repository.

Most tools list images alone. BuildKit and containerd may list attestations and referrers beside them, cosign and Hauler
signatures, and oras every manifest: the children of an index, and what refers to another. `cosign save` does not even
list its newer signatures: they are blobs of the layout, known by their `subject`.

`sort_out` gives every entry a place. It is an image, or a part of one (the child of an index), or it speaks of a
manifest that is in the archive (`claims` tells of which), or it is left out, with the reason.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from registry_spooler.archive.contents import Contents
from registry_spooler.archive.formats.image import Names, Referrer
from registry_spooler.archive.limits import LISTED_MAX
from registry_spooler.errors import ArchiveError, InvalidReference
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import (
    CONTAINERD_SUBJECT,
    IMAGE_NAME,
    REFERENCE_NAME,
    Descriptor,
    Manifest,
    load_json,
)
from registry_spooler.oci.reference import ImageName, check_tag
from registry_spooler.progress import LeftOut

_BUILDKIT_SUBJECT: Final = "vnd.docker.reference.digest"
_KIND: Final = "kind"
_PREFIXES: Final = ("dev.cosignproject.cosign/", "dev.hauler/")
_SUFFIXES: Final = {f"{prefix}{kind}s": f".{kind}" for prefix in _PREFIXES for kind in ("sig", "att", "sbom")}
_REFERRERS: Final = tuple(f"{prefix}referrers/" for prefix in _PREFIXES)
_COSIGN_TAG: Final = re.compile(r"sha256-([0-9a-f]{64})(\.sig|\.att|\.sbom)")
_FALLBACK_TAG: Final = re.compile(r"sha256-[0-9a-f]{64}")

_SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_DSSE: Final = "application/vnd.dsse.envelope.v1+json"
_IN_TOTO: Final = "application/vnd.in-toto+json"
_SBOM_WORDS: Final = ("spdx", "cyclonedx", "syft")
_PAYLOAD_MAX_BYTES: Final = 1 << 20
"""Of what is signed; one that is larger is not looked into. A simple signature has 300 bytes."""
_PAYLOADS_MAX: Final = 4
"""All of one manifest speak of the same image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That an entry speaks of another manifest."""

    subject: Digest | None
    """Of which; None when it is to be found by its name, or by what is signed."""
    suffix: str
    """Of cosign's tag; empty for what goes by its digest."""


def claims_of(entry: Descriptor, manifest: Manifest | None, called: Names) -> tuple[Claim, ...]:
    """Return what an entry says that it refers to; nothing when it is an image."""
    noted = _noted_claim(entry, manifest, called)
    if manifest is None or manifest.subject is None:
        return (noted,) if noted is not None else ()
    subject = manifest.subject.digest
    by_itself = Claim(subject=subject, suffix="")
    has_tag = _cosign_tag(called) is not None or entry.annotations.get(_KIND) in _SUFFIXES
    if noted is None or not has_tag:
        return (by_itself,)
    return by_itself, Claim(subject=noted.subject or subject, suffix=noted.suffix)


def _noted_claim(entry: Descriptor, manifest: Manifest | None, called: Names) -> Claim | None:
    """Return what the layout's writer says of an entry."""
    annotations = entry.annotations
    kind = annotations.get(_KIND, "")
    if kind.startswith(_REFERRERS):
        return Claim(subject=_digest(annotations.get(CONTAINERD_SUBJECT)), suffix="")
    if (by_tag := _cosign_tag(called)) is not None:
        return by_tag
    noted = annotations.get(CONTAINERD_SUBJECT) or (
        annotations.get(_BUILDKIT_SUBJECT) if entry.is_attestation else None
    )
    if noted is None and kind not in _SUFFIXES and not entry.is_attestation:
        return None
    return Claim(subject=_digest(noted), suffix=_SUFFIXES.get(kind) or _suffix_of(manifest))


def cosign_tag(subject: Digest, suffix: str) -> str:
    """Return the tag under which cosign looks for what refers to a manifest."""
    return f"{subject.algorithm}-{subject.hex}{suffix}"


def is_listing(entry: Descriptor, called: Names) -> bool:
    """Return whether it is the index of referrers that clients keep under a tag where a registry does not.

    https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
    """
    return entry.is_index and any(_FALLBACK_TAG.fullmatch(tag) for tag in _tags(called))


def signed_digests(contents: Contents, manifest: Manifest | None) -> tuple[Digest, ...]:
    """The digests that the signed payloads of a manifest name; none when they are absent, too large or unreadable."""
    found: dict[Digest, None] = {}
    for layer in manifest.layers[:_PAYLOADS_MAX] if manifest is not None else ():
        content = contents.peek(layer.digest, _PAYLOAD_MAX_BYTES) if layer.size <= _PAYLOAD_MAX_BYTES else None
        if content is not None:
            found |= dict.fromkeys(_named_in(layer.media_type, content))
    return tuple(found)


def _named_in(media_type: str, content: bytes) -> Iterator[Digest]:
    try:
        document = load_json(content, where="payload")
        if media_type == _SIMPLE_SIGNING:
            yield Digest.parse(document["critical"]["image"]["docker-manifest-digest"])
        elif media_type == _DSSE:
            yield from _subjects(load_json(base64.b64decode(document["payload"]), where="payload"))
        elif media_type == _IN_TOTO:
            yield from _subjects(document)
    except (ArchiveError, ValueError, KeyError, TypeError, binascii.Error):
        return  # not what its type says: whoever verifies it will say so


def _subjects(statement: Any) -> Iterator[Digest]:
    """The subjects of an in-toto statement.

    https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
    """
    for subject in statement["subject"][:_PAYLOADS_MAX]:
        yield Digest("sha256", subject["digest"]["sha256"])


def _cosign_tag(called: Names) -> Claim | None:
    for tag in _tags(called):
        if match := _COSIGN_TAG.fullmatch(tag):
            return Claim(subject=Digest("sha256", match[1]), suffix=match[2])
    return None


def _tags(called: Names) -> tuple[str, ...]:
    return called.tags + tuple(name.reference.tag or "" for name in called.names)


def _suffix_of(manifest: Manifest | None) -> str:
    """By what is in it; most that is attached without a word of its kind is an attestation."""
    types = [layer.media_type for layer in manifest.layers[:1]] if manifest is not None else []
    if _SIMPLE_SIGNING in types:
        return ".sig"
    return ".sbom" if any(word in media_type for media_type in types for word in _SBOM_WORDS) else ".att"


def _digest(text: str | None) -> Digest | None:
    try:
        return Digest.parse(text) if text else None
    except ValueError:
        return None


_DEPTH_MAX: Final = 4
_MANIFESTS_MAX: Final = 1000
_UNLISTED_MAX_BYTES: Final = 256 << 10
"""Of a manifest that no index lists: those of signatures have a few thousand bytes."""


def names_of(entry: Descriptor) -> Names:
    """What an entry is called: containerd writes the full name, all others one name that is full or a tag."""
    name = entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REFERENCE_NAME) or ""
    try:
        if "/" in name or ":" in name:
            return Names(names=(ImageName.parse(name),))
        return Names(tags=(check_tag(name),)) if name else Names()
    except InvalidReference:
        return Names()  # whatever it is, nobody can ask for it by this name


@dataclass(slots=True)
class Sorted:
    """The entries of an index, by what they are."""

    images: list[Descriptor] = field(default_factory=list)
    referrers: dict[Digest, list[Referrer]] = field(default_factory=dict)
    """What speaks of a manifest, by that one's digest."""
    left_out: list[LeftOut] = field(default_factory=list)

    def leave_out(self, entry: Descriptor, reason: str) -> None:
        """Take note of an entry that is not pushed."""
        self.left_out.append(LeftOut(digest=entry.digest, reason=reason, name=str(names_of(entry))))


def sort_out(contents: Contents, entries: Sequence[Descriptor]) -> Sorted:
    """Give each entry its place; when none is an image, all are."""
    result = Sorted()
    entries = _without_listings(contents, entries, result)
    distinct = {entry.digest: entry for entry in entries}.values()
    found = {entry.digest: manifest for entry in distinct if (manifest := _manifest(contents, entry)) is not None}
    children = {child.digest for manifest in found.values() for child in manifest.manifests}
    claims: list[tuple[Descriptor, Claim]] = []
    named: list[Descriptor] = []
    for entry in entries:
        manifest, called = found.get(entry.digest), names_of(entry)
        claimed = claims_of(entry, manifest, called)
        by_itself = manifest is not None and manifest.subject is not None
        if entry.digest in children and not by_itself and (claimed or not called):
            continue  # a part of an image
        claims += [(entry, claim) for claim in claimed]
        if not claimed:
            result.images.append(entry)
        elif by_itself and called and not any(claim.suffix for claim in claimed):
            named.append(entry)
    taken = {name for entry in result.images for name in _names(entry)}
    result.images += [entry for entry in named if taken.isdisjoint(_names(entry))]
    if not result.images:
        return Sorted(images=list(entries))
    _Owners(contents, result, claims).settle()
    return result


def referrers_of(contents: Contents, root: Descriptor, result: Sorted) -> tuple[Referrer, ...]:
    """What refers to an image, to one of its platforms, or to one of its referrers."""
    return tuple(_reached(digests_below(contents, root), result)) if result.referrers else ()


def _reached(digests: Iterable[Digest], result: Sorted) -> Iterator[Referrer]:
    pending, seen = list(dict.fromkeys(digests)), set[tuple[Digest, Digest, str]]()
    while pending:
        for referrer in result.referrers.get(pending.pop(), ()):
            key = referrer.entry.digest, referrer.subject, referrer.tag
            if key not in seen:
                seen.add(key)
                pending.append(referrer.entry.digest)
                yield referrer


class _Owners:
    """Finds out what each claim is about."""

    def __init__(self, contents: Contents, result: Sorted, claims: list[tuple[Descriptor, Claim]]) -> None:
        self._contents = contents
        self._result = result
        self._claims = claims
        self._trees: dict[Digest, set[Digest]] = {}
        self._by_name: dict[object, list[Digest]] = {}
        self._tags: dict[str, Digest] = {}
        self._added: set[tuple[Digest, Digest, str]] = set()

    def settle(self) -> None:
        """Enter what speaks of a manifest of this archive; leave out the rest."""
        claiming = {entry.digest for entry, _ in self._claims}
        unlisted = _unlisted(self._contents, claiming.union(entry.digest for entry in self._result.images))
        if not self._claims and not unlisted:
            return
        self._grow_trees()
        known = set().union(*self._trees.values(), claiming, unlisted)
        for entry, claim in self._claims:
            self._enter(entry, claim, known)
        for manifest in unlisted.values():
            assert manifest.subject is not None
            if manifest.subject.digest in known:
                self._add(manifest.descriptor(), manifest.subject.digest, "")
        reached = {r.entry.digest for r in _reached(set().union(*self._trees.values()), self._result)}
        entered = {r.entry.digest: r.entry for found in self._result.referrers.values() for r in found}
        for digest in claiming & entered.keys() - reached:
            self._result.leave_out(entered[digest], "what it speaks of is left out")

    def _grow_trees(self) -> None:
        count = 0
        for image in self._result.images:
            for name in _names(image):
                self._by_name.setdefault(name, []).append(image.digest)
            if image.digest not in self._trees and count < LISTED_MAX:
                self._trees[image.digest] = set(digests_below(self._contents, image))
                count += len(self._trees[image.digest])

    def _enter(self, entry: Descriptor, claim: Claim, known: set[Digest]) -> None:
        subject, reason = (claim.subject, "") if claim.subject is not None else self._find_subject(entry)
        if subject is None:
            self._result.leave_out(entry, reason)
        elif subject not in known:
            if entry not in self._result.images:
                self._result.leave_out(entry, f"it speaks of {subject}, which the archive does not hold")
        else:
            self._add(entry, subject, claim.suffix)

    def _find_subject(self, entry: Descriptor) -> tuple[Digest | None, str]:
        """By the name that it shares with an image, then by what is signed; or why neither tells."""
        sharing = dict.fromkeys(digest for name in _names(entry) for digest in self._by_name.get(name, ()))
        owners = list(sharing or self._trees)
        signed = signed_digests(self._contents, _manifest(self._contents, entry))
        for digest in signed:
            if any(digest in self._trees.get(owner, ()) for owner in owners):
                return digest, ""
        if signed:
            return None, f"it speaks of {signed[0]}, which the archive does not hold"
        if len(owners) == 1:
            return owners[0], ""
        return None, f"nothing tells which of the archive's {len(owners)} images it speaks of"

    def _add(self, entry: Descriptor, subject: Digest, suffix: str) -> None:
        tag = cosign_tag(subject, suffix) if suffix else ""
        if tag and self._tags.setdefault(tag, entry.digest) != entry.digest:
            self._result.leave_out(entry, f"another entry, {self._tags[tag]}, goes to its tag {tag}")
            return
        if (key := (entry.digest, subject, tag)) not in self._added:
            self._added.add(key)
            self._result.referrers.setdefault(subject, []).append(Referrer(entry=entry, subject=subject, tag=tag))


def _without_listings(contents: Contents, entries: Sequence[Descriptor], result: Sorted) -> Sequence[Descriptor]:
    """The entries, with those in place of a list of referrers that it lists."""
    listings = [entry for entry in entries if is_listing(entry, names_of(entry))]
    if not listings or len(listings) == len(entries):
        return entries
    kept = {entry.digest: entry for entry in listings}
    listed: dict[Digest, Descriptor] = {}
    for entry in kept.values():
        result.leave_out(entry, "it lists what refers to a manifest; the registry keeps such a list itself")
        manifest = _manifest(contents, entry)
        listed |= {child.digest: child for child in manifest.manifests} if manifest is not None else {}
    left = [entry for entry in entries if entry.digest not in kept]
    return [*left, *(child for digest, child in listed.items() if digest not in {entry.digest for entry in left})]


def _unlisted(contents: Contents, listed: set[Digest]) -> dict[Digest, Manifest]:
    """Manifests with a subject that are in the layout and in no index, as `cosign save` leaves them."""
    found: dict[Digest, Manifest] = {}
    for member in contents:
        digest = member.blob_digest
        if digest is None or digest in listed or member.size > _UNLISTED_MAX_BYTES:
            continue
        content = contents.peek(digest, _UNLISTED_MAX_BYTES)
        if content is None or not content.lstrip().startswith(b"{") or b'"subject"' not in content:
            continue
        with suppress(ArchiveError):
            manifest = Manifest.parse(content)
            if manifest.subject is not None and manifest.digest == digest:
                found[digest] = manifest
    return found


def digests_below(contents: Contents, root: Descriptor) -> Iterator[Digest]:
    """A root, and all manifests that it and the indexes below it list, whether the archive holds them or not."""
    pending, seen = [(root, 0)], 0
    while pending and seen < _MANIFESTS_MAX:
        descriptor, depth = pending.pop()
        seen += 1
        yield descriptor.digest
        if descriptor.is_manifest or depth > _DEPTH_MAX:
            continue
        manifest = _manifest(contents, descriptor)
        if manifest is not None:
            pending += [(child, depth + 1) for child in reversed(manifest.manifests)]


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


def _names(entry: Descriptor) -> tuple[object, ...]:
    called = names_of(entry)
    return (*called.names, *called.tags)
