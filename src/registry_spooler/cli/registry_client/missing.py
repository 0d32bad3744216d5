"""`missing`, `signature`, `rebuild`: which blobs a repository lacks, and what they can be made from.

A mount needs to know where the blob is. The likeliest places are asked: the repositories that share most of their path
with this one, up to a limit, since every question is a request.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#mounting-a-blob-from-another-repository

A layer that cannot be mounted may be much like one that is there: `signature` tells what that one holds, and `rebuild`
makes the new one of it and a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import anyio.to_thread
import click

from registry_spooler.cli.printing import say, say_bytes, say_json
from registry_spooler.cli.registry_client.connection import Connection, connected
from registry_spooler.cli.registry_client.contents_commands import in_order, json_option
from registry_spooler.cli.registry_client.spool_commands import directory_option
from registry_spooler.errors import RegistryError
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference, check_repository
from registry_spooler.progress import Progress

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


@click.command()
@click.argument("reference", metavar="REF")
@directory_option
@connected()
def signature(connection: Connection, /, reference: str, directory: Path) -> None:
    """Print the signature of the layer that a delta can be based on, for `kubectl spool push`.

    Standard input says which: `{"position": 2, "created_by": "RUN …", "platform": "linux/amd64"}` is the layer of the
    same step of the image REF, or of the newest of its repository. The answer is a line of JSON with the layer's digest
    and sizes, and the signature's bytes; `{"base": null}` when there is no such layer.
    """
    from registry_spooler.delta.base import STEP_MAX_BYTES, LayerStep
    from registry_spooler.push.delta_bases import find_base

    parsed = Reference.parse(reference)

    async def work(client: RegistryClient) -> None:
        content = await anyio.to_thread.run_sync(
            _read_some, connection, STEP_MAX_BYTES, abandon_on_cancel=connection.remote is None
        )
        step = LayerStep.decode(content)
        if connection.remote is not None:
            connection.remote.base_wanted(step)
        base = await find_base(client, parsed, step, connection.signatures(directory))
        if base is None:
            say_json({"base": None})
            return
        say_json({"base": str(base.digest), "size": base.size, "signature_bytes": len(base.signature)})
        say_bytes(base.signature)

    connection.with_client(work)


@click.command()
@click.argument("repository", metavar="REPO")
@click.option("--base", required=True, metavar="DIGEST", help="Layer in the registry to build from.")
@click.option("--diff-id", required=True, metavar="DIGEST", help="Expected digest of the plain layer.")
@click.option("--digest", metavar="DIGEST", help="Expected digest of the compressed layer, if it is known.")
@click.option("--size", type=click.IntRange(min=0), help="Expected compressed size in bytes, if it is known.")
@click.option("--compression", type=click.Choice(["gzip", "zstd"]), default="gzip", show_default=True)
@directory_option
@connected(pushes=True)
def rebuild(connection: Connection, /, repository: str, directory: Path, **order: Any) -> None:
    """Rebuild a layer from a base and the recipe on standard input, for `kubectl spool push`.

    It becomes a blob of the repository only if it is as expected. Prints its digest and size as JSON.
    """
    from registry_spooler.archive.compression import Compression
    from registry_spooler.push.delta_rebuild import LayerOrder, ScratchFile, rebuild_layer, scratch_folder

    layer = LayerOrder(
        repository=check_repository(repository),
        base=_digest(order["base"]),
        diff_id=_digest(order["diff_id"]),
        compression=Compression(order["compression"]),
        digest=_digest(order["digest"]) if order["digest"] is not None else None,
        size=order["size"],
    )

    # Opened here, and not in `work`: that runs in the daemon's event loop.
    with scratch_folder(directory) as folder, ScratchFile(folder) as recipe, ScratchFile(folder) as aside:

        async def work(client: RegistryClient) -> None:
            progress = Progress()
            if connection.remote is not None:
                connection.remote.started(layer.repository, progress)
            recipe_bytes = await anyio.to_thread.run_sync(
                _read_into, connection, recipe, abandon_on_cancel=connection.remote is None
            )
            size = await client.blob_exists(layer.repository, layer.digest) if layer.digest is not None else None
            digest = layer.digest
            if digest is None or size is None:
                measured = await rebuild_layer(client, layer, recipe, aside, progress)
                digest, size = measured.digest, measured.size
                progress.blobs_uploaded += 1
                progress.uploaded_bytes += size
                progress.rebuilt_layers += 1
                progress.saved_bytes += size - recipe_bytes
            say_json({"digest": str(digest), "size": size})

        connection.with_client(work)


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as exc:
        raise click.UsageError(f"{text[:100]!r} is not a digest") from exc


def _read_some(connection: Connection, limit: int) -> bytes:
    """Standard input to its end, which has to come before the limit."""
    content = b""
    with connection.reading() as read:
        while len(content) <= limit and (piece := read(PIECE_BYTES)):
            content += piece
    if len(content) > limit:
        raise click.UsageError(f"standard input has more than {limit:,} bytes")
    return content


def _read_into(connection: Connection, file: BinaryIO) -> int:
    size = 0
    with connection.reading() as read:
        while piece := read(PIECE_BYTES):
            size += file.write(piece)
    return size
