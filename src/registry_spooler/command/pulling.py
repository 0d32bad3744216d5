"""`pull`: an image as an archive, or as the file that it was made from."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry_spooler.command.connection import Connection, connected
from registry_spooler.command.printing import count
from registry_spooler.command.reporting import reported
from registry_spooler.progress import Progress
from registry_spooler.pull import Format, Output, Puller, output_file, parse_platform, standard_output
from registry_spooler.reference import Reference

if TYPE_CHECKING:
    from registry_spooler.registry import RegistryClient


@click.command()
@click.argument("reference", metavar="REF")
@click.option("-o", "--output", default="-", metavar="FILE", help="Write to a file, which appears when it is complete.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["docker", "oci"]),
    default="docker",
    show_default=True,
    help="docker: one image, for `docker load` and all others. oci: every platform, byte for byte, with signatures.",
)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of several; this machine's otherwise.")
@click.option("--no-referrers", is_flag=True, help="Leave signatures, attestations and SBOMs out of an OCI archive.")
@click.option("--unpack", is_flag=True, help="Write the file that the image was made from, not an archive.")
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
    if output == "-" and not unpack and sys.stdout.isatty():
        raise click.UsageError("a tar is nothing for a terminal; redirect it, or name a file with -o")

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
    progress, warnings = Progress(), list[str]()
    async with AsyncExitStack() as stack:
        output = await _open(stack, path)
        await stack.enter_async_context(reported(progress, str(reference), connection.far_end))
        await write(Puller(client=client, reference=reference, output=output, progress=progress, warn=warnings.append))
    for sentence in warnings:
        connection.warn(sentence)


async def _open(stack: AsyncExitStack, path: str) -> Output:
    if path == "-":
        return standard_output(count)
    return await stack.enter_async_context(output_file(Path(path)))
