"""`list`, `tags`, `inspect`, `pull`, `delete`: what is in the registry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click

from registry_spooler.cli.bars import bars
from registry_spooler.cli.kubectl import completing
from registry_spooler.cli.kubectl.target import ClusterTarget, json_option, quiet_option, target_options
from registry_spooler.cli.printing import say, say_bytes, say_json, warn
from registry_spooler.cli.process import ExitCode, run
from registry_spooler.kubernetes.wire import Document
from registry_spooler.oci.reference import Reference
from registry_spooler.text import quoted, size_text


@click.command("list")
@click.option("--tags", "with_tags", is_flag=True, help="Print REPOSITORY:TAG for every image.")
@json_option
@target_options
def list_images(target: ClusterTarget, with_tags: bool, as_json: bool) -> None:
    """List the repositories of the registry."""

    async def work() -> list[str]:
        async with target.connect() as client:
            return [str(image) for image in await client.images()] if with_tags else list(await client.repositories())

    _print_lines(run(work), as_json)


@click.command()
@click.argument("repository", shell_complete=completing.references)
@json_option
@target_options
def tags(target: ClusterTarget, repository: str, as_json: bool) -> None:
    """List the tags of a repository."""

    async def work() -> list[str]:
        async with target.connect() as client:
            return list(await client.tags(repository))

    _print_lines(run(work), as_json)


@click.command()
@click.argument("reference", metavar="REPOSITORY[:TAG]", shell_complete=completing.references)
@click.option(
    "--format",
    "wanted",
    metavar="json|raw|FIELD",
    help="json: everything; raw: the manifest, byte for byte; or a field by its path: digest, platforms.0.layers.",
)
@json_option
@target_options
def inspect(target: ClusterTarget, reference: str, wanted: str | None, as_json: bool) -> None:
    """Show an image's platforms, layers, sizes and digests."""
    parsed = Reference.parse(reference)

    async def work() -> dict[str, Any] | bytes:
        async with target.connect() as client:
            return await client.manifest(parsed) if wanted == "raw" else (await client.inspect(parsed)).document

    answer = run(work)
    if isinstance(answer, bytes):
        say_bytes(answer)
    elif as_json or wanted == "json":
        say_json(answer)
    elif wanted is not None:
        found = _field(answer, wanted)
        say(found) if isinstance(found, str) else say_json(found)
    else:
        for line in _image_lines(Document(answer, "inspect")):
            say(line)


def _field(document: Any, path: str) -> Any:
    """Return what a document has at a path of keys and numbers. click.UsageError if there is nothing."""
    for key in path.split("."):
        keys = list(document) if isinstance(document, dict) else []
        if isinstance(document, list):
            keys, document = [str(at) for at in range(len(document))], {str(at): x for at, x in enumerate(document)}
        if key not in keys:
            has = f"; there is: {', '.join(keys)}" if keys else ""
            raise click.UsageError(f"no field {quoted(key)} on the path {quoted(path)}{has}")
        document = document[key]
    return document


@click.command()
@click.argument("reference", metavar="REPOSITORY[:TAG]", shell_complete=completing.references)
@click.option("-o", "--output", default="-", metavar="FILE", help="Write to this file; it appears when it is complete.")
@click.option("--format", "layout", type=click.Choice(["docker", "oci"]), default="docker", show_default=True)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform to pull from a multi-platform image.")
@click.option("--no-referrers", is_flag=True, help="Leave signatures, attestations and SBOMs out of an OCI archive.")
@click.option("--unpack", is_flag=True, help="Write the file that the image was made from.")
@quiet_option
@target_options
def pull(
    target: ClusterTarget,
    reference: str,
    output: str,
    layout: Literal["docker", "oci"],
    platform: str | None,
    no_referrers: bool,
    unpack: bool,
    quiet: bool,
) -> None:
    """Write an image as an archive, for `docker load`, `podman load` or another push."""
    parsed = Reference.parse(reference)
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("refusing to write an archive to a terminal; use -o FILE")

    warnings: list[str] = []

    async def work() -> None:
        async with target.connect() as client:
            with bars(quiet=quiet or output == "-") as shown:
                async with shown.transfer(f"{reference} → {output}") as told:
                    await client.pull(
                        parsed,
                        sys.stdout.buffer if output == "-" else Path(output),
                        platform=platform,
                        archive_format=layout,
                        unpack=unpack,
                        referrers=not no_referrers,
                        on_bytes=lambda done: told(done, 0),
                        on_warning=warnings.append,
                    )

    run(work)
    for sentence in warnings:
        warn(sentence)


@click.command()
@click.argument(
    "references", metavar="REPOSITORY[:TAG]…", nargs=-1, required=True, shell_complete=completing.references
)
@json_option
@target_options
@click.pass_context
def delete(context: click.Context, target: ClusterTarget, references: tuple[str, ...], as_json: bool) -> None:
    """Remove tags, and nothing else: other tags of the same image stay.

    Prints the digests that they had. The exit code is 3 when one of them was not there.
    """
    parsed = [Reference.parse(text) for text in references]

    async def work() -> list[dict[str, Any]]:
        async with target.connect() as client:
            digests = [(reference, await client.delete(reference)) for reference in parsed]
        return [
            {"reference": str(reference), "digest": str(digest) if digest else None} for reference, digest in digests
        ]

    removed = run(work)
    if as_json:
        say_json(removed)
    for document in removed:
        if not document["digest"]:
            warn(f"{document['reference']} was not there")
        elif not as_json:
            say(document["digest"])
    if not all(document["digest"] for document in removed):
        context.exit(ExitCode.NOT_FOUND)


def _image_lines(document: Document) -> Iterator[str]:
    yield f"{document['reference'].text()}  {_digest_and_size(document)}"
    for image in document["platforms"].entries():
        title = image["platform"].text_or_none() or "artifact"
        yield f"{'attestation' if image['attests'].value else title}  {_digest_and_size(image)}"
        for layer in image["layers"].entries():
            yield f"  {_digest_and_size(layer)}  {layer['media_type'].text_or_none()}"


def _digest_and_size(document: Document) -> str:
    return f"{document['digest'].text()}  {size_text(document['size_bytes'].number())}"


def _print_lines(lines: list[str], as_json: bool) -> None:
    if as_json:
        say_json(lines)
        return
    for line in lines:
        say(line)
