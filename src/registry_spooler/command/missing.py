"""`missing`: which of many blobs a repository lacks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio.to_thread
import click

from registry_spooler.command.connection import Connection, connected
from registry_spooler.command.listing import json_option
from registry_spooler.command.mounting import mount_blobs
from registry_spooler.command.parallel import in_order
from registry_spooler.command.printing import say, say_json
from registry_spooler.digest import Digest
from registry_spooler.reference import check_repository

if TYPE_CHECKING:
    from registry_spooler.registry import RegistryClient


@click.command()
@click.argument("repository", metavar="REPO")
@click.option("--mount", is_flag=True, help="Take what other repositories hold over from there.")
@json_option
@connected(pushes=True)
def missing(connection: Connection, repository: str, mount: bool, as_json: bool) -> None:
    """Print those digests of standard input, one a line, that a repository lacks.

    With --mount, blobs that similar repositories of the same registry hold become part of this one, without
    being sent. With --json the sizes of those that are there are printed as well.
    """
    check_repository(repository)

    async def work(client: RegistryClient) -> None:
        # A read that waits for a terminal must not keep the program from ending.
        digests = await anyio.to_thread.run_sync(_read_digests, abandon_on_cancel=True)

        async def size(digest: Digest) -> int | None:
            return await client.blob_exists(repository, digest)

        answers = in_order(size, digests)
        sizes = {digest: await anext(answers) for digest in digests}
        absent = [digest for digest in digests if sizes[digest] is None]
        if mount and absent:
            left = await mount_blobs(client, repository, absent)
            sizes |= {digest: await size(digest) for digest in absent if digest not in left}
        _print(sizes, as_json)

    connection.with_client(work)


def _print(sizes: dict[Digest, int | None], as_json: bool) -> None:
    absent = [str(digest) for digest, size in sizes.items() if size is None]
    if as_json:
        say_json(
            {"missing": absent, "present": {str(digest): size for digest, size in sizes.items() if size is not None}}
        )
        return
    for digest in absent:
        say(digest)


def _read_digests() -> list[Digest]:
    """Standard input to its end: a digest a line, each once."""
    digests: dict[Digest, None] = {}
    for number, line in enumerate(sys.stdin.buffer, 1):
        text = line.decode("ascii", "replace").strip()
        if not text:
            continue
        try:
            digests[Digest.parse(text)] = None
        except ValueError as exc:
            raise click.UsageError(f"line {number} of standard input is not a digest: {text[:100]!r}") from exc
    return list(digests)
