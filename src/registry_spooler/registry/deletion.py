"""Deleting what was meant, and only that: one tag, or a digest with all its tags.

Registries that delete by tag are asked to. Distribution 2.8 deletes by digest alone, and then every tag
of that digest goes. There the tag is moved to a placeholder manifest that nothing else points to, and
the placeholder is deleted. Before the tag is touched, a first placeholder is pushed and deleted by its
digest: a registry that does not delete shows it then, while nothing is lost. When the last step fails
all the same, the tag gets its manifest back; and a cancellation waits for what has begun. In the end the registry is
asked again: some say that they deleted, and did not.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any, Final

import anyio
import orjson

from registry_spooler import mediatype
from registry_spooler.digest import EMPTY_JSON, Digest
from registry_spooler.errors import DeletionNotConfirmed, NotFound, RegistryAnswer, RegistryError
from registry_spooler.manifest import Manifest
from registry_spooler.reference import Reference
from registry_spooler.registry.exchange import Access, Exchange
from registry_spooler.registry.manifests import SIGHT_SECONDS, get_manifest, head_manifest, put_manifest

_TAG_NOT_DELETED_ALONE: Final = frozenset({"DIGEST_INVALID", "UNSUPPORTED", "NAME_INVALID", "TAG_INVALID", ""})


class TagDeletion:
    """Deletes one tag. `put_bytes` stores a small blob in the tag's repository."""

    def __init__(self, exchange: Exchange, reference: Reference, access: Access, put_bytes: Any) -> None:
        self._exchange = exchange
        self._reference = reference
        self._access = access
        self._put_bytes = put_bytes

    async def run(self) -> bool:
        """True when the tag is gone, False when it was not there.

        DeletesDisabled when it may not go, DeletionNotConfirmed when the registry says that it went and it has not.
        """
        there = await head_manifest(self._exchange, self._reference, self._access)
        if there is None or not await self._delete_tag():
            return False
        await confirm_deletion(self._exchange, self._reference, self._access, there.digest)
        return True

    async def _delete_tag(self) -> bool:
        try:
            await delete_manifest(self._exchange, self._reference, self._access)
            return True
        except NotFound:
            # Either it is gone, or this registry knows no such request.
            if await head_manifest(self._exchange, self._reference, self._access) is None:
                return False
        except RegistryAnswer as error:
            if error.status != 400 or error.code not in _TAG_NOT_DELETED_ALONE:
                raise
        return await self._delete_by_placeholder()

    async def _delete_by_placeholder(self) -> bool:
        try:
            original = await get_manifest(self._exchange, self._reference, self._access)
        except NotFound:
            return False
        await self._put_bytes(EMPTY_JSON)
        probe = await self._placeholder(original)
        await put_manifest(self._exchange, self._by_digest(probe), probe, self._access)
        await self._delete(probe)
        placeholder = await self._placeholder(original)
        with anyio.CancelScope(shield=True):  # in between the tag is the placeholder's
            await self._delete_with_tag(placeholder, original)
        return True

    async def _delete_with_tag(self, placeholder: Manifest, original: Manifest) -> None:
        await put_manifest(self._exchange, self._reference, placeholder, self._access)
        try:
            await self._delete(placeholder)
        except RegistryError:
            await put_manifest(self._exchange, self._reference, original, self._access)
            raise

    async def _delete(self, manifest: Manifest) -> None:
        await delete_manifest(self._exchange, self._by_digest(manifest), self._access)

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


async def delete_manifest(exchange: Exchange, reference: Reference, access: Access) -> None:
    """Delete by tag or by digest, as the reference has it; NotFound when it is not there."""
    url = exchange.address.url(reference.repository, "manifests", reference.target)
    await exchange.call("DELETE", url, access=access, expected={200, 202, 204})


async def confirm_deletion(exchange: Exchange, reference: Reference, access: Access, deleted: Digest) -> None:
    """Return when the registry answers no longer with what was deleted; DeletionNotConfirmed when it goes on to.

    What somebody else has put there since is another digest, and none of this deletion's business.
    """
    for seconds in (0.0, *SIGHT_SECONDS):
        await anyio.sleep(seconds)
        found = await head_manifest(exchange, reference, access)
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
