"""Manifests that refer to another one (signatures, SBOMs), also where the registry does not list them.

A registry that answers a manifest's PUT with `OCI-Subject` knows referrers; for any other the client keeps
an index under a tag made of the subject's digest.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests-with-subject
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from registry_spooler.errors import ArchiveError, NotFound, RegistryProtocolError
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.registry.http.http_client import Access, HttpClient
from registry_spooler.registry.http.transport import Answer
from registry_spooler.registry.manifests import get_manifest, put_manifest
from registry_spooler.registry.tags import next_link

_ROUNDS: Final = 3
"""Others may write the same tag between our reading and our writing; what was lost is added again."""
_PAGES_MAX: Final = 100
"""Of one list; far more than anyone signs."""


def referrers_tag(digest: Digest) -> str:
    """Return the tag of a subject's fallback index."""
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"


async def note_referrer(http: HttpClient, repository: str, manifest: Manifest, access: Access) -> None:
    """Add a manifest to the fallback index of its subject, unless it is there."""
    if manifest.subject is None:
        return
    reference = Reference(repository, referrers_tag(manifest.subject.digest))
    for _ in range(_ROUNDS):
        index = await _fallback_index(http, reference, access)
        known = index.manifests if index is not None else ()
        if any(entry.digest == manifest.digest for entry in known):
            return
        await put_manifest(http, reference, _with_entry(index, manifest), access)


async def list_referrers(http: HttpClient, repository: str, digest: Digest, access: Access) -> tuple[Descriptor, ...]:
    """Return what refers to a digest: from the registry's API or, if that lists nothing, the fallback index."""
    if listed := await _ask_api(http, repository, digest, access):
        return listed
    index = await _fallback_index(http, Reference(repository, referrers_tag(digest)), access)
    return index.manifests if index is not None else ()


async def _ask_api(http: HttpClient, repository: str, digest: Digest, access: Access) -> tuple[Descriptor, ...]:
    """All pages of https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers."""
    url, found = http.address.url(repository, "referrers", str(digest)), dict[Digest, Descriptor]()
    for _ in range(_PAGES_MAX):
        answer = await http.call(
            "GET", url, access=access, expected={200, 404, 405}, headers={"Accept": mediatype.OCI_INDEX}
        )
        if answer.status != 200:
            break
        found |= {entry.digest: entry for entry in _read(http, answer, digest)}
        link = next_link(answer.headers.getall("Link", []))
        if link is None:
            break
        url = http.rules.page(answer.url, link)
    return tuple(found.values())


def _read(http: HttpClient, answer: Answer, digest: Digest) -> tuple[Descriptor, ...]:
    try:
        return Manifest.parse(answer.content, media_type=mediatype.OCI_INDEX, where="its list").manifests
    except ArchiveError as exc:
        reason = http.rules.secrets.hide(str(exc))
        raise RegistryProtocolError(str(http.address), f"what refers to {digest} cannot be read: {reason}") from None


async def _fallback_index(http: HttpClient, reference: Reference, access: Access) -> Manifest | None:
    try:
        index = await get_manifest(http, reference, access)
    except NotFound:
        return None
    if not index.is_index:
        raise RegistryProtocolError(str(http.address), f"{reference} should be an index of referrers and is none")
    return index


def _with_entry(index: Manifest | None, manifest: Manifest) -> Manifest:
    document: dict[str, Any] = (
        orjson.loads(index.content)
        if index is not None
        else {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
    )
    entry = manifest.descriptor().to_json()
    kind = manifest.artifact_type or (manifest.config.media_type if manifest.config is not None else "")
    if kind:
        entry["artifactType"] = kind
    if manifest.annotations:
        entry["annotations"] = manifest.annotations
    document["manifests"] = [*document["manifests"], entry]
    content = orjson.dumps(document)
    return Manifest.parse(content, media_type=mediatype.OCI_INDEX, where="index of referrers")
