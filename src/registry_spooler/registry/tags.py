"""Listing repositories and tags, and deleting exactly what was asked.

`Link` alone says whether there is more, and leads only to the same origin.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags

Registries that delete by tag are asked to. Distribution 2.8 deletes by digest alone, and then every tag
of that digest goes. There the tag is moved to a placeholder manifest that nothing else points to, and
the placeholder is deleted. Before the tag is touched, a first placeholder is pushed and deleted by its
digest: a registry that does not delete shows it then, while nothing is lost. When the last step fails
all the same, the tag gets its manifest back; and a cancellation waits for what has begun. In the end the registry is
asked again: some say that they deleted, and did not.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import orjson

from registry_spooler.errors import DeletionNotConfirmed, NotFound, RegistryAnswer, RegistryError, RegistryProtocolError
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import EMPTY_JSON, Digest
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.registry.http.http_client import Access, HttpClient
from registry_spooler.registry.http.transport import Answer
from registry_spooler.registry.manifests import SIGHT_SECONDS, get_manifest, head_manifest, put_manifest

PAGE_ENTRIES: Final = 1000
"""The most that distribution takes; a registry that refuses it is asked for a page of its own liking."""
PAGES_MAX: Final = 10_000
PAGE_BYTES: Final = 64 << 20
"""Distribution 2.8 sends all tags at once, however many: this does for a million."""
_NO_CATALOG: Final = frozenset({401, 403, 404, 405})
_LINK: Final = re.compile(r'<([^<>]*)>\s*((?:;\s*[\w!#$&+.^`|~-]+\s*(?:=\s*(?:"[^"]*"|[^\s";,]+))?\s*)*)')
_NEXT: Final = re.compile(r';\s*rel\s*=\s*(?:"[^"]*\bnext\b[^"]*"|next\b)', re.IGNORECASE)


async def list_repositories(http: HttpClient) -> AsyncGenerator[str, None]:
    """Yield every repository that these credentials may see; the catalog is not in the OCI specification."""
    url, access = http.address.url("_catalog"), ("registry:catalog:*",)
    try:
        async with aclosing(_entries(http, url, "repositories", access)) as entries:
            async for name in entries:
                yield name
    except RegistryAnswer as error:
        if error.status in _NO_CATALOG:
            # To a wrong password many answer just what others answer to everybody who asks for a catalog.
            wrong_login = f"{error.hint}; or " if error.status == 401 and error.hint else ""
            error.hint = f"{wrong_login}this registry offers no catalog of its repositories, or not to this login"
        raise


def list_tags(http: HttpClient, repository: str, access: Access) -> AsyncGenerator[str, None]:
    """Yield every tag of a repository; NotFound when there is no such repository."""
    return _entries(http, http.address.url(repository, "tags", "list"), "tags", access)


async def _entries(http: HttpClient, url: str, key: str, access: Access) -> AsyncGenerator[str, None]:
    try:
        answer = await _page(http, f"{url}?n={PAGE_ENTRIES}", access)
    except RegistryAnswer as error:
        if error.status != 400:
            raise
        answer = await _page(http, url, access)
    previous: list[str] = []
    for _ in range(PAGES_MAX):
        entries = _read(http, answer, key)
        for entry in entries:
            yield entry
        link = next_link(answer.headers.getall("Link", []))
        if link is None or (entries and entries == previous):
            return
        previous = entries
        answer = await _page(http, http.rules.page(answer.url, link), access)


async def _page(http: HttpClient, url: str, access: Access) -> Answer:
    return await http.call("GET", url, access=access, expected={200}, limit_bytes=PAGE_BYTES)


def next_link(headers: list[str]) -> str | None:
    """The target of `rel="next"` among `Link` headers (RFC 8288), as it stands there."""
    for header in headers:
        for match in _LINK.finditer(header):
            if _NEXT.search(match[2]):
                return match[1]
    return None


def _read(http: HttpClient, answer: Answer, key: str) -> list[str]:
    try:
        document: Any = orjson.loads(answer.content)
        entries = document.get(key) or []
        return [entry for entry in entries if isinstance(entry, str)]
    except (orjson.JSONDecodeError, AttributeError, TypeError) as exc:
        raise RegistryProtocolError(str(http.address), f"what should be a list of {key} is none") from exc


_TAG_NOT_DELETED_ALONE: Final = frozenset({"DIGEST_INVALID", "UNSUPPORTED", "NAME_INVALID", "TAG_INVALID", ""})


class TagDeletion:
    """Deletes one tag. `put_bytes` stores a small blob in the tag's repository."""

    def __init__(self, http: HttpClient, reference: Reference, access: Access, put_bytes: Any) -> None:
        self._http = http
        self._reference = reference
        self._access = access
        self._put_bytes = put_bytes

    async def run(self) -> bool:
        """True when the tag is gone, False when it was not there.

        DeletesDisabled when it may not go, DeletionNotConfirmed when the registry says that it went and it has not.
        """
        there = await head_manifest(self._http, self._reference, self._access)
        if there is None or not await self._delete_tag():
            return False
        await confirm_deletion(self._http, self._reference, self._access, there.digest)
        return True

    async def _delete_tag(self) -> bool:
        try:
            await delete_manifest(self._http, self._reference, self._access)
            return True
        except NotFound:
            # Either it is gone, or this registry knows no such request.
            if await head_manifest(self._http, self._reference, self._access) is None:
                return False
        except RegistryAnswer as error:
            if error.status != 400 or error.code not in _TAG_NOT_DELETED_ALONE:
                raise
        return await self._delete_by_placeholder()

    async def _delete_by_placeholder(self) -> bool:
        try:
            original = await get_manifest(self._http, self._reference, self._access)
        except NotFound:
            return False
        await self._put_bytes(EMPTY_JSON)
        probe = await self._placeholder(original)
        await put_manifest(self._http, self._by_digest(probe), probe, self._access)
        await self._delete(probe)
        placeholder = await self._placeholder(original)
        with anyio.CancelScope(shield=True):  # in between the tag is the placeholder's
            await self._delete_with_tag(placeholder, original)
        return True

    async def _delete_with_tag(self, placeholder: Manifest, original: Manifest) -> None:
        await put_manifest(self._http, self._reference, placeholder, self._access)
        try:
            await self._delete(placeholder)
        except RegistryError:
            await put_manifest(self._http, self._reference, original, self._access)
            raise

    async def _delete(self, manifest: Manifest) -> None:
        await delete_manifest(self._http, self._by_digest(manifest), self._access)

    def _by_digest(self, manifest: Manifest) -> Reference:
        return Reference(self._reference.repository, None, manifest.digest)

    async def _placeholder(self, original: Manifest) -> Manifest:
        """A manifest like no other, of the same family as the one that the tag points to."""
        is_docker = original.media_type in {mediatype.DOCKER_LIST, mediatype.DOCKER_MANIFEST}
        config = _config(str(self._reference.tag))
        await self._put_bytes(config)
        document = {
            "schemaVersion": 2,
            "mediaType": mediatype.DOCKER_MANIFEST if is_docker else mediatype.OCI_MANIFEST,
            "config": _pointer(mediatype.DOCKER_CONFIG if is_docker else mediatype.OCI_CONFIG, config),
            "layers": [_pointer(mediatype.DOCKER_LAYER_GZIP if is_docker else mediatype.OCI_LAYER, EMPTY_JSON)],
        }
        return Manifest.parse(orjson.dumps(document), where="placeholder")


async def delete_manifest(http: HttpClient, reference: Reference, access: Access) -> None:
    """Delete by tag or by digest, as the reference has it; NotFound when it is not there."""
    url = http.address.url(reference.repository, "manifests", reference.target)
    await http.call("DELETE", url, access=access, expected={200, 202, 204})


async def confirm_deletion(http: HttpClient, reference: Reference, access: Access, deleted: Digest) -> None:
    """Return when the registry answers no longer with what was deleted; DeletionNotConfirmed when it goes on to.

    What somebody else has put there since is another digest, and none of this deletion's business.
    """
    for seconds in (0.0, *SIGHT_SECONDS):
        await anyio.sleep(seconds)
        found = await head_manifest(http, reference, access)
        if found is None or found.digest != deleted:
            return
    raise DeletionNotConfirmed(str(reference), deleted)


def _pointer(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


def _config(tag: str) -> bytes:
    now = datetime.now(UTC).isoformat()
    return orjson.dumps(
        {
            "created": now,
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"deleted-tag": tag, "deletion": secrets.token_hex(16)}},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(EMPTY_JSON))]},
            "history": [{"created": now, "comment": "stands in for a tag that is being deleted"}],
        }
    )
