"""`pull`, `push` and `receive`: images out of the registry and into it, without the spool."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from registry_spooler.aio import task_group
from registry_spooler.cli.bars import bars
from registry_spooler.cli.printing import say, say_json
from registry_spooler.cli.registry_client.connection import Connection, connected, setting
from registry_spooler.cli.registry_client.contents_commands import json_option
from registry_spooler.cli.registry_client.remote_end import PROGRESS_SECONDS, RemoteSession
from registry_spooler.oci.reference import Reference, check_repository
from registry_spooler.progress import Progress
from registry_spooler.pull.image_tree import parse_platform
from registry_spooler.pull.output import Output, output_file, standard_output
from registry_spooler.spool.filename import archive_suffix
from registry_spooler.text import size_text

if TYPE_CHECKING:
    from registry_spooler.pull.puller import Puller
    from registry_spooler.push.pusher import Pusher
    from registry_spooler.registry.registry_client import RegistryClient


@click.command()
@click.argument("reference", metavar="REF")
@click.option("-o", "--output", default="-", metavar="FILE", help="Write to this file; it appears when it is complete.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["docker", "oci"]),
    default="docker",
    show_default=True,
    help="docker: one platform, for `docker load` and others. oci: all platforms, byte for byte, with signatures.",
)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Platform to pull (default: this machine's).")
@click.option("--no-referrers", is_flag=True, help="Leave signatures, attestations and SBOMs out of an OCI archive.")
@click.option("--unpack", is_flag=True, help="Write the file that the image was made from.")
@connected()
def pull(
    connection: Connection,
    reference: str,
    output: str,
    format_name: str,
    platform: str | None,
    no_referrers: bool,
    unpack: bool,
) -> None:
    """Write an image to standard output, as a tar.

    REF is REPO[:TAG] or REPO@DIGEST; without both the tag is `latest`. Every byte is verified; should one be wrong, the
    tar stays without its end and the exit code is 1.
    """
    parsed = Reference.parse(reference)
    wanted = parse_platform(platform) if platform is not None else None
    if output == "-" and not unpack and connection.remote is None and sys.stdout.isatty():
        raise click.UsageError("refusing to write a tar to a terminal; use -o FILE")

    from registry_spooler.pull.puller import Format

    async def write(puller: Puller) -> None:
        if unpack:
            await puller.file(wanted)
        else:
            await puller.archive(Format(format_name), wanted, referrers=not no_referrers)

    async def work(client: RegistryClient) -> None:
        await _pull(connection, client, parsed, output, write)

    connection.with_client(work)


async def _pull(
    connection: Connection,
    client: RegistryClient,
    reference: Reference,
    path: str,
    write: Callable[[Puller], Awaitable[None]],
) -> None:
    from registry_spooler.pull.puller import Puller

    progress, warnings = Progress(), list[str]()
    async with AsyncExitStack() as stack:
        output = await _open(stack, path, connection.remote)
        await stack.enter_async_context(_reported(progress, str(reference), connection.remote))
        await write(Puller(client=client, reference=reference, output=output, progress=progress, warn=warnings.append))
    for sentence in warnings:
        connection.warn(sentence)


async def _open(stack: AsyncExitStack, path: str, remote: RemoteSession | None) -> Output:
    if path == "-":
        return standard_output() if remote is None else remote.standard_output()
    return await stack.enter_async_context(output_file(Path(path)))


compression_option = setting(
    "--compression",
    type=click.Choice(["gzip", "zstd", "none"]),
    default="gzip",
    show_default=True,
    help="Compression of a docker archive's plain layers.",
)


@click.command()
@click.argument("first", metavar="REF")
@click.argument("second", metavar="FILE")
@click.option(
    "--archive/--raw",
    "is_archive",
    default=None,
    help="Treat FILE as an image archive, or as a plain file (default: decided by its name and content).",
)
@compression_option
@json_option
@connected(pushes=True)
def push(
    connection: Connection, first: str, second: str, is_archive: bool | None, compression: str, as_json: bool
) -> None:
    """Push an archive, or any file, and print the digest.

    FILE is `-` for an archive on standard input. A file that is no image archive becomes an image of one layer that
    holds its bytes. FILE REF, the order of `kubectl spool push`, is understood too: the first argument is the FILE when
    it is `-`, ends like an archive, or is the only one that is a file.
    """
    # The engine has libraries of its own, which no other command needs to load.
    from registry_spooler.cli.registry_client import push_setup as engine

    reference, file = _in_order(first, second)
    parsed = engine.tagged(reference)

    async def work(client: RegistryClient) -> None:
        document = await _push(
            connection,
            engine.pusher(client, compression, connection.known or engine.remembered()),
            file,
            parsed,
            is_archive,
        )
        if as_json:
            say_json(document)
        else:
            say(str(document["digest"]))

    connection.with_client(work)


@click.command()
@click.argument("target", metavar="REF")
@click.option("--blobs", is_flag=True, help="Only store the archive's blobs in the repository REF; tag nothing.")
@compression_option
@connected(pushes=True)
def receive(connection: Connection, target: str, blobs: bool, compression: str) -> None:
    """Push the archive on standard input, and print the result as JSON.

    Blobs that the registry holds already may be absent from it. Each blob is stored as soon as it has arrived, so that
    after a cut only the rest need be sent. Progress and signs of life go to standard error.
    """
    from registry_spooler.cli.registry_client import push_setup as engine

    reference = None if blobs else engine.tagged(target)
    repository = reference.repository if reference is not None else check_repository(target)

    async def work(client: RegistryClient) -> None:
        pusher = engine.pusher(client, compression, connection.known)
        say_json(await _receive(connection, pusher, reference, repository))

    connection.with_client(work)


def _in_order(first: str, second: str) -> tuple[str, str]:
    """REF and FILE, in whichever order they came."""
    if first == "-":
        return second, first
    can_be_file, is_taken = Path(first).is_file(), second == "-" or Path(second).is_file()
    is_file_first = not is_taken or can_be_file if archive_suffix(first) else can_be_file and not is_taken
    return (second, first) if is_file_first else (first, second)


async def _push(
    connection: Connection, pusher: Pusher, file: str, reference: Reference, is_archive: bool | None
) -> dict[str, Any]:
    from registry_spooler.archive.opening import is_image_archive
    from registry_spooler.archive.source import FileSource, unchanged
    from registry_spooler.cli.registry_client import push_setup as engine

    clock = engine.Clock()
    async with engine.opened(file, connection) as source:
        if is_archive is None:
            named_so = file == "-" or bool(archive_suffix(file))
            is_archive = named_so or not isinstance(source, FileSource) or await is_image_archive(source)
        progress = Progress(bytes_total=source.size if isinstance(source, FileSource) else 0)
        check = unchanged(source)
        async with _reported(progress, str(reference), connection.remote):
            if is_archive:
                (result,) = await pusher.push_archive(source, reference, progress, before_tag=check)
            elif isinstance(source, FileSource):
                result = await pusher.push_file(source, reference, progress, before_tag=check)
            else:
                raise click.UsageError("a raw file cannot come through a pipe, only an archive can; name the file")
    return {**result.to_json(), **clock.to_json()}


async def _receive(
    connection: Connection, pusher: Pusher, reference: Reference | None, repository: str
) -> dict[str, Any]:
    from registry_spooler.archive.source import PipeSource
    from registry_spooler.cli.registry_client import push_setup as engine

    clock = engine.Clock()
    # As a pipe even when it is a file: what comes by once is stored as it comes.
    session = _session(connection)
    source = session.input if session is not None else PipeSource(0, name=engine.STANDARD_INPUT)
    progress = Progress(bytes_total=source.left_bytes or 0)
    async with _reported(progress, str(reference or repository), session):
        if reference is not None:
            (result,) = await pusher.push_archive(source, reference, progress, commit_early=True)
            if session is not None:
                session.pushed(result)
            return {**result.to_json(), **clock.to_json()}
        counts = await pusher.receive_blobs(source, repository, progress)
    return counts.to_json()


def _session(connection: Connection) -> RemoteSession | None:
    """Return where progress goes: a program that calls us directly gets the same lines as a remote caller."""
    if connection.remote is not None or sys.stderr.isatty():
        return connection.remote
    session = RemoteSession()
    session.attach()
    return session


@asynccontextmanager
async def _reported(progress: Progress, title: str, session: RemoteSession | None) -> AsyncGenerator[None]:
    """Report progress while the block runs: to the remote caller, or as a bar on a terminal."""
    if session is None:
        with bars() as shown:
            async with shown.show(title, lambda: _state(progress)):
                yield
        return
    session.started(title, progress)
    async with task_group() as tasks:
        tasks.start_soon(_repeat, progress, session)
        yield
        tasks.cancel_scope.cancel()
    session.progress(progress, final=True)


def _state(progress: Progress) -> tuple[int, int, str]:
    return progress.bytes_done, progress.bytes_total, size_text(progress.bytes_done)


async def _repeat(progress: Progress, session: RemoteSession) -> None:
    while True:
        session.progress(progress)
        await anyio.sleep(PROGRESS_SECONDS)
