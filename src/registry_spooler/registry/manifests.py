"""Manifests in and out, byte for byte.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests
"""

from __future__ import annotations

import hashlib
from typing import Final

import anyio

from registry_spooler.errors import (
    ArchiveError,
    DigestNotSupported,
    NotFound,
    RefusedElsewhere,
    RegistryAnswer,
    RegistryProtocolError,
)
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import MANIFEST_MAX_BYTES, Descriptor, Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.registry.blobs import blob_size
from registry_spooler.registry.http.answer_errors import is_page
from registry_spooler.registry.http.http_client import Access, HttpClient
from registry_spooler.registry.http.transport import Answer, whole_number

_UNKNOWN_PARTS: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
_HALF_WRITTEN: Final = "DIGEST_INVALID"
"""What distribution says to a manifest by tag when it reads the link of a blob that another upload writes anew."""
SIGHT_SECONDS: Final = (1.0, 2.0, 4.0)
"""The waits for a registry to see what it has; GHCR was reported to need them."""
_ACCEPT = {"Accept": mediatype.MANIFEST_ACCEPT}


async def get_manifest(http: HttpClient, reference: Reference, access: Access) -> Manifest:
    """Return the manifest of a reference, verified; NotFound when there is none."""
    url = http.address.url(reference.repository, "manifests", reference.target)
    answer = await http.call("GET", url, access=access, expected={200}, headers=_ACCEPT)
    manifest = _read(http, answer, reference)
    wanted = reference.digest or _declared_digest(answer)
    if wanted is not None and not _is_digest_of(wanted, manifest):
        raise RegistryProtocolError(
            str(http.address), f"the manifest of {reference} has the digest {manifest.digest}, not {wanted}"
        )
    return manifest


async def head_manifest(http: HttpClient, reference: Reference, access: Access) -> Descriptor | None:
    """Return what a reference points to; None when there is no such manifest. Some registries only know GET."""
    url = http.address.url(reference.repository, "manifests", reference.target)
    try:
        answer = await http.call("HEAD", url, access=access, expected={200, 404, 405}, certain={404}, headers=_ACCEPT)
    except RefusedElsewhere:
        answer = None  # a URL that is signed for GET alone
    if answer is not None and answer.status == 404:
        return None
    if answer is not None and answer.status == 200 and not is_page(answer.headers):
        digest, size = _declared_digest(answer), whole_number(answer.headers.get("Content-Length"))
        if digest is not None and size is not None:
            return Descriptor(media_type=_media_type(answer), digest=digest, size=size)
    try:
        return (await get_manifest(http, reference, access)).descriptor()
    except NotFound:
        return None


async def put_manifest(http: HttpClient, reference: Reference, manifest: Manifest, access: Access) -> Answer:
    """Store a manifest under its reference; its blobs and children must be there.

    Some registries need a moment before they see what they have just been sent, and report it missing.
    """
    for seconds in SIGHT_SECONDS:
        try:
            return await _put_once(http, reference, manifest, access)
        except RegistryAnswer as error:
            if error.status == 400 and reference.digest is not None and reference.digest.algorithm != "sha256":
                raise DigestNotSupported(str(http.address), reference.digest) from error
            may_pass = error.code in _UNKNOWN_PARTS or (error.code == _HALF_WRITTEN and reference.digest is None)
            if not may_pass:
                raise
            if missing := await _missing_part(http, reference.repository, manifest, access):
                error.hint = f"the repository does not hold {missing.digest}"
                # What was there when it was pushed has been cleared away: pushing again brings it back.
                error.temporary = not missing.is_foreign
                raise
        await anyio.sleep(seconds)
    return await _put_once(http, reference, manifest, access)


async def _missing_part(http: HttpClient, repository: str, manifest: Manifest, access: Access) -> Descriptor | None:
    for blob in manifest.blobs:
        if await blob_size(http, repository, blob.digest, access) is None:
            return blob
    for child in manifest.manifests:
        if await head_manifest(http, Reference(repository, None, child.digest), access) is None:
            return child
    return None


async def _put_once(http: HttpClient, reference: Reference, manifest: Manifest, access: Access) -> Answer:
    url = http.address.url(reference.repository, "manifests", reference.target)
    answer = await http.call(
        "PUT",
        url,
        access=access,
        expected={200, 201, 202},
        headers={"Content-Type": manifest.media_type},
        body=manifest.content,
    )
    declared = _declared_digest(answer)
    if declared is None:
        # A web server that says 200 or 201 to everything has not stored an image; a registry that says no more has.
        found = await head_manifest(http, reference, access)
        if found is None or not _is_digest_of(found.digest, manifest):
            raise RegistryProtocolError(
                str(http.address), f"it answered {answer.status} to a manifest, and does not hold it"
            )
    elif not _is_digest_of(declared, manifest):
        raise RegistryProtocolError(
            str(http.address), f"it stored {reference} as {declared}, and {manifest.digest} was sent"
        )
    return answer


def _read(http: HttpClient, answer: Answer, reference: Reference) -> Manifest:
    if is_page(answer.headers):
        raise RegistryProtocolError(str(http.address), f"it answered with a web page for the manifest {reference}")
    if len(answer.content) > MANIFEST_MAX_BYTES:
        raise RegistryProtocolError(str(http.address), f"the manifest of {reference} is larger than 4 MiB")
    try:
        return Manifest.parse(answer.content, media_type=_media_type(answer), where=str(reference))
    except ArchiveError as exc:
        reason = http.rules.secrets.hide(str(exc))
        raise RegistryProtocolError(str(http.address), f"a manifest cannot be read: {reason}") from None


def _is_digest_of(digest: Digest, manifest: Manifest) -> bool:
    return digest == (manifest.digest if digest.algorithm == "sha256" else _sha512(manifest.content))


def _sha512(content: bytes) -> Digest:
    return Digest("sha512", hashlib.sha512(content).hexdigest())


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _declared_digest(answer: Answer) -> Digest | None:
    try:
        return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
    except ValueError:
        return None
