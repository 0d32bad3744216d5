"""`delete`: one tag, or on request a digest with all its tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from registry_spooler.command.connection import Connection, connected
from registry_spooler.command.ending import NotHere
from registry_spooler.command.listing import json_option
from registry_spooler.command.printing import say, say_json
from registry_spooler.reference import Reference

if TYPE_CHECKING:
    from registry_spooler.digest import Digest
    from registry_spooler.registry import RegistryClient


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--digest", "by_digest", is_flag=True, help="Delete the manifest itself, and so every tag that points to it."
)
@json_option
@connected(pushes=True)
def delete(connection: Connection, reference: str, by_digest: bool, as_json: bool) -> None:
    """Delete one tag; other tags of the same image stay.

    With --digest the image goes with all its tags, which are printed first. The exit code is 3 when the image was not
    there.
    """
    parsed = Reference.parse(reference)
    if parsed.digest is not None and not by_digest:
        raise click.UsageError("to delete by digest takes all its tags along; add --digest to do so")

    async def work(client: RegistryClient) -> None:
        digest = parsed.digest or await _digest_of(client, parsed)
        tags = await _delete(client, parsed, digest, by_digest=by_digest, announce=not as_json)
        if as_json:
            say_json(_document(parsed, digest if tags is not None else None, tags or ()))
        elif tags is not None:
            say(f"deleted {parsed}" + (f" ({digest})" if parsed.digest is None else ""))
        if tags is None and connection.far_end is None:  # a caller from afar reads it in the answer
            raise NotHere(f"{parsed} was not there")

    connection.with_client(work)


async def _digest_of(client: RegistryClient, reference: Reference) -> Digest | None:
    found = await client.head_manifest(reference)
    return found.digest if found is not None else None


async def _delete(
    client: RegistryClient, reference: Reference, digest: Digest | None, *, by_digest: bool, announce: bool
) -> tuple[str, ...] | None:
    """The tags that went; None when there was nothing to delete."""
    if digest is None:
        return None
    if not by_digest:
        return (str(reference.tag),) if await client.delete_tag(reference) else None
    tags = await client.tags_of(reference.repository, digest)
    if announce:
        for tag in tags:
            say(f"with {reference.repository}:{tag}")
    return tags if await client.delete_digest(Reference(reference.repository, None, digest)) else None


def _document(reference: Reference, digest: Digest | None, tags: tuple[str, ...]) -> dict[str, Any]:
    return {"reference": str(reference), "digest": str(digest) if digest is not None else None, "tags": list(tags)}
