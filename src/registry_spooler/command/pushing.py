"""`push` and `receive`: an archive or a file straight into the registry, without the spool."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from registry_spooler.command.connection import Connection, connected, setting
from registry_spooler.command.listing import json_option
from registry_spooler.command.printing import say, say_json
from registry_spooler.command.remote import FarEnd
from registry_spooler.command.reporting import reported
from registry_spooler.filename import archive_suffix
from registry_spooler.progress import Progress
from registry_spooler.reference import check_repository

if TYPE_CHECKING:
    from registry_spooler.push import Pusher
    from registry_spooler.reference import Reference
    from registry_spooler.registry import RegistryClient

compression_option = setting(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="For the plain layers of a docker archive.",
)


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("file", metavar="FILE")
@click.option(
    "--archive/--raw",
    "is_archive",
    default=None,
    help="Is it an image archive, or a file of any kind? Its name tells otherwise, as in the spool.",
)
@compression_option
@json_option
@connected(pushes=True)
def push(
    connection: Connection, reference: str, file: str, is_archive: bool | None, compression: str, as_json: bool
) -> None:
    """Push an archive, or any file, and print the digest.

    FILE is `-` for an archive on standard input. A file whose name has no archive's ending becomes an image of one
    layer that holds its bytes.
    """
    # The engine has libraries of its own, which no other command needs to load.
    from registry_spooler.command import engine

    parsed = engine.tagged(reference)

    async def work(client: RegistryClient) -> None:
        document = await _push(connection, engine.pusher(client, compression), file, parsed, is_archive)
        if as_json:
            say_json(document)
        else:
            say(str(document["digest"]))

    connection.with_client(work)


@click.command()
@click.argument("target", metavar="REF")
@click.option("--blobs", is_flag=True, help="Only store the blobs of the archive in the repository REF; tag nothing.")
@compression_option
@connected(pushes=True)
def receive(connection: Connection, target: str, blobs: bool, compression: str) -> None:
    """Push the archive on standard input, and print the result as JSON.

    Blobs that the registry holds already may be absent from it. Each blob is stored as soon as it has arrived, so that
    after a cut only the rest need be sent. Progress and signs of life go to standard error.
    """
    from registry_spooler.command import engine

    reference = None if blobs else engine.tagged(target)
    repository = reference.repository if reference is not None else check_repository(target)

    async def work(client: RegistryClient) -> None:
        pusher = engine.pusher(client, compression)
        say_json(await _receive(pusher, reference, repository, _witness(connection)))

    connection.with_client(work)


async def _push(
    connection: Connection, pusher: Pusher, file: str, reference: Reference, is_archive: bool | None
) -> dict[str, Any]:
    from registry_spooler.archive import FileSource
    from registry_spooler.command import engine

    clock = engine.Clock()
    async with engine.opened(file) as source:
        if is_archive is None:
            is_archive = file == "-" or bool(archive_suffix(file)) or not isinstance(source, FileSource)
        progress = Progress(bytes_total=source.size if isinstance(source, FileSource) else 0)
        check = engine.unchanged(source)
        async with reported(progress, str(reference), connection.far_end):
            if is_archive:
                (result,) = await pusher.push_archive(source, reference, progress, before_tag=check)
            elif isinstance(source, FileSource):
                result = await pusher.push_file(source, reference, progress, before_tag=check)
            else:
                raise click.UsageError("a raw file cannot come through a pipe, only an archive can; name the file")
    return {**result.to_json(), **clock.to_json()}


async def _receive(
    pusher: Pusher, reference: Reference | None, repository: str, far_end: FarEnd | None
) -> dict[str, Any]:
    from registry_spooler.archive import PipeSource
    from registry_spooler.command import engine

    progress = Progress()
    clock = engine.Clock()
    # As a pipe even when it is a file: what comes by once is stored as it comes.
    source = PipeSource(0, name=engine.STANDARD_INPUT)
    async with reported(progress, repository, far_end):
        if reference is not None:
            (result,) = await pusher.push_archive(source, reference, progress, commit_early=True)
            return {**result.to_json(), **clock.to_json()}
        counts = await pusher.receive_blobs(source, repository, progress)
    blobs = {"uploaded": counts.uploaded, "existing": counts.existing, "mounted": counts.mounted}
    return {"blobs": blobs, "uploaded_bytes": counts.uploaded_bytes}


def _witness(connection: Connection) -> FarEnd | None:
    """Who tells how it goes: for a program that called us directly, the same lines as from afar."""
    if connection.far_end is not None or sys.stderr.isatty():
        return connection.far_end
    far_end = FarEnd()
    far_end.attach(None)
    return far_end
