"""What an entry of an OCI layout says of another: that it is a signature, an attestation or an SBOM of it.

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
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from registry_spooler.archive.contents import Contents
from registry_spooler.archive.image import Names
from registry_spooler.digest import Digest
from registry_spooler.errors import ArchiveError
from registry_spooler.manifest import CONTAINERD_SUBJECT, Descriptor, Manifest, load_json

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
    """What an entry says that it speaks of; nothing when it is an image."""
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
    """What the layout's writer says of an entry."""
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
    """Where cosign looks for what speaks of a manifest."""
    return f"{subject.algorithm}-{subject.hex}{suffix}"


def is_listing(entry: Descriptor, called: Names) -> bool:
    """Is it the index of referrers that clients keep under a tag, where a registry does not?

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
