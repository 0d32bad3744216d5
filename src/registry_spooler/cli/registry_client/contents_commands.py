"""`list`, `tags`, `inspect`, `delete`: what is in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from registry_spooler.aio import task_group
from registry_spooler.cli.printing import say, say_bytes, say_json
from registry_spooler.cli.process import NotHere
from registry_spooler.cli.registry_client.connection import Connection, connected
from registry_spooler.errors import NotFound
from registry_spooler.oci.reference import Reference, check_repository
from registry_spooler.pull.image_tree import ImageTree, platform_of, read_tree
from registry_spooler.text import size_text

if TYPE_CHECKING:
    from registry_spooler.oci.digest import Digest
    from registry_spooler.oci.manifest import Descriptor, Manifest, Platform
    from registry_spooler.registry.registry_client import RegistryClient


T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 8
"""Enough to hide the way to a registry far off; a small one is not overrun."""


class NotInRegistry(NotHere):
    """There is no such image to delete."""

    sentence = "{reference} was not there"

    reference: str


async def in_order(ask: Callable[[T], Awaitable[R]], questions: Sequence[T]) -> AsyncIterator[R]:
    """Answer by answer; the first error ends it."""
    for start in range(0, len(questions), AT_ONCE):
        batch = questions[start : start + AT_ONCE]
        answers: dict[int, R] = {}

        async def answer(index: int, question: T, answers: dict[int, R] = answers) -> None:
            answers[index] = await ask(question)

        async with task_group() as group:
            for index, question in enumerate(batch):
                group.start_soon(answer, index, question)
        for index in range(len(batch)):
            yield answers[index]


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("list")
@click.option("--tags", "with_tags", is_flag=True, help="Print REPO:TAG for every image.")
@json_option
@connected()
def list_images(connection: Connection, with_tags: bool, as_json: bool) -> None:
    """List the repositories of the registry.

    A repository whose last image has been deleted stays in the registry's own list; --tags leaves it out.
    """

    async def work(client: RegistryClient) -> None:
        lines = _images(client) if with_tags else client.list_repositories()
        await _print_lines(lines, as_json)

    connection.with_client(work)


@click.command()
@click.argument("repository", metavar="REPO")
@json_option
@connected()
def tags(connection: Connection, repository: str, as_json: bool) -> None:
    """List the tags of a repository."""
    check_repository(repository)

    async def work(client: RegistryClient) -> None:
        found = sorted([tag async for tag in client.list_tags(repository)])
        if as_json:
            say_json(found)
            return
        for tag in found:
            say(tag)

    connection.with_client(work)


async def _print_lines(lines: AsyncIterator[str], as_json: bool) -> None:
    if as_json:
        say_json([line async for line in lines])
        return
    async for line in lines:
        say(line)


async def _images(client: RegistryClient) -> AsyncIterator[str]:
    async def tags_of(repository: str) -> list[str]:
        try:
            return sorted([tag async for tag in client.list_tags(repository)])
        except NotFound:  # its last image has been deleted
            return []

    repositories = [repository async for repository in client.list_repositories()]
    found = in_order(tags_of, repositories)
    for repository in repositories:
        for tag in await anext(found):
            yield f"{repository}:{tag}"


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--raw", is_flag=True, help="Print the manifest's own bytes.")
@json_option
@connected()
def inspect(connection: Connection, reference: str, raw: bool, as_json: bool) -> None:
    """Show an image's platforms, layers, sizes and digests.

    REF is REPO[:TAG] or REPO@DIGEST; without both the tag is `latest`.
    """
    parsed = Reference.parse(reference)

    async def work(client: RegistryClient) -> None:
        manifest = await client.get_manifest(parsed)
        if raw:
            say_bytes(manifest.content)
            return
        document = await describe(client, parsed, manifest)
        if as_json:
            say_json(document)
        else:
            _print_image(document)

    connection.with_client(work)


async def describe(client: RegistryClient, reference: Reference, root: Manifest) -> dict[str, Any]:
    """The image as a document: one entry per platform, an artifact's or attestation's platform being empty."""
    tree = await read_tree(client, reference.repository, root)
    listed = {child.digest: child for parent in tree.manifests.values() for child in parent.manifests}
    images = []
    for digest, manifest in tree.manifests.items():
        if not manifest.is_index:
            child = listed.get(digest)
            platform = child.platform if child is not None else None
            if platform is None:
                platform = await platform_of(client, reference.repository, manifest)
            images.append(_image(manifest, platform, child))
    return {
        "reference": str(reference),
        "digest": str(root.digest),
        "media_type": root.media_type,
        "artifact_type": root.artifact_type,
        "size_bytes": _size_bytes(tree),
        "annotations": root.annotations,
        "platforms": images,
        "missing": [str(child.digest) for child in tree.missing],
    }


def _size_bytes(tree: ImageTree) -> int:
    """The manifests and all that they name, each blob once."""
    blobs = {blob.digest: blob.size for blob in tree.blobs}
    return sum(manifest.size for manifest in tree.manifests.values()) + sum(blobs.values())


def _image(manifest: Manifest, platform: Platform | None, child: Descriptor | None) -> dict[str, Any]:
    attests = child.attests if child is not None else None
    return {
        "platform": str(platform) if platform is not None else "",
        "digest": str(manifest.digest),
        "media_type": manifest.media_type,
        "size_bytes": manifest.size + sum({blob.digest: blob.size for blob in manifest.blobs}.values()),
        "attests": str(attests) if attests is not None else None,
        "config": _blob(manifest.config) if manifest.config is not None else None,
        "layers": [_blob(layer) for layer in manifest.layers],
    }


def _blob(descriptor: Descriptor) -> dict[str, Any]:
    return {"digest": str(descriptor.digest), "media_type": descriptor.media_type, "size_bytes": descriptor.size}


def _print_image(document: dict[str, Any]) -> None:
    for line in _lines(document):
        say(line)


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield f"reference  {document['reference']}"
    yield f"digest     {document['digest']}"
    yield f"type       {document['artifact_type'] or document['media_type']}"
    yield f"size       {size_text(document['size_bytes'])}"
    for name, value in document["annotations"].items():
        yield f"annotation {name}={value}"
    for image in document["platforms"]:
        yield ""
        yield f"{_title(image)}  {image['digest']}  {size_text(image['size_bytes'])}"
        for number, layer in enumerate(image["layers"], 1):
            yield f"  layer {number}  {layer['digest']}  {size_text(layer['size_bytes'])}  {layer['media_type']}"
    for digest in document["missing"]:
        yield f"missing    {digest}"


def _title(image: dict[str, Any]) -> str:
    if image["attests"] is not None:
        return "attestation"
    return image["platform"] or "artifact"


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
        if tags is None and connection.remote is None:  # a caller from afar reads it in the answer
            raise NotInRegistry(str(parsed))

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
