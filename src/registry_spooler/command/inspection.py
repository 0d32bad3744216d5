"""`inspect`: what an image consists of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from registry_spooler.command.connection import Connection, connected
from registry_spooler.command.listing import json_option
from registry_spooler.command.printing import say, say_bytes, say_json
from registry_spooler.pull.platform import platform_of
from registry_spooler.pull.tree import ImageTree, read_tree
from registry_spooler.reference import Reference
from registry_spooler.text import size_text

if TYPE_CHECKING:
    from registry_spooler.manifest import Descriptor, Manifest, Platform
    from registry_spooler.registry import RegistryClient


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
            _print(document)

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


def _print(document: dict[str, Any]) -> None:
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
