"""`missing`: which of many blobs a repository lacks, and taking them over from others.

A mount needs to know where the blob is. The likeliest places are asked: the repositories that share most of their path
with this one, up to a limit, since every question is a request.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#mounting-a-blob-from-another-repository
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import anyio.to_thread
import click

from registry_spooler.cli.printing import say, say_json
from registry_spooler.cli.registry_client.connection import Connection, connected
from registry_spooler.cli.registry_client.contents_commands import in_order, json_option
from registry_spooler.errors import RegistryError
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import check_repository

if TYPE_CHECKING:
    from registry_spooler.registry.registry_client import RegistryClient


REPOSITORIES_MAX: Final = 30
"""How many repositories are asked, at one request per blob and repository."""


async def mount_blobs(client: RegistryClient, repository: str, digests: list[Digest]) -> list[Digest]:
    """Mount what can be mounted; what cannot comes back, in its order.

    No trouble on the way is an error: a blob that is not mounted is sent.
    """
    try:
        names = [name async for name in client.list_repositories()]
    except RegistryError:  # there is no catalog, or it is not for us
        return digests
    for source in likely_sources(repository, names):

        async def stays(digest: Digest, source: str = source) -> bool:
            return not await _mount(client, repository, digest, source)

        answers = in_order(stays, digests)
        digests = [digest for digest in digests if await anext(answers)]
        if not digests:
            break
    return digests


def likely_sources(repository: str, names: Iterable[str]) -> list[str]:
    """The repositories to ask, those first whose path begins like this one's for the longest."""
    others = (name for name in names if name != repository)
    return sorted(others, key=lambda name: (-_shared_components(name, repository), name))[:REPOSITORIES_MAX]


def _shared_components(one: str, other: str) -> int:
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


async def _mount(client: RegistryClient, repository: str, digest: Digest, source: str) -> bool:
    try:
        if await client.blob_exists(source, digest) is None:
            return False
        return await client.mount_blob(repository, digest, source)
    except RegistryError:
        return False


@click.command()
@click.argument("repository", metavar="REPO")
@click.option("--mount", is_flag=True, help="Mount blobs that other repositories hold.")
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
        digests = await anyio.to_thread.run_sync(_read_digests, connection, abandon_on_cancel=connection.remote is None)

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


def _read_digests(connection: Connection) -> list[Digest]:
    """Standard input to its end: a digest a line, each once."""
    with connection.reading() as read:
        content = b"".join(iter(lambda: read(PIECE_BYTES), b""))
    digests: dict[Digest, None] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        text = line.decode("ascii", "replace").strip()
        if not text:
            continue
        try:
            digests[Digest.parse(text)] = None
        except ValueError as exc:
            raise click.UsageError(f"line {number} of standard input is not a digest: {text[:100]!r}") from exc
    return list(digests)
