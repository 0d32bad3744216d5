"""Taking blobs over from other repositories of the same registry.

A mount needs to know where the blob is. The likeliest places are asked: the repositories that share most of their path
with this one, up to a limit, since every question is a request.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#mounting-a-blob-from-another-repository
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from registry_spooler.command.parallel import in_order
from registry_spooler.digest import Digest
from registry_spooler.errors import RegistryError

if TYPE_CHECKING:
    from registry_spooler.registry import RegistryClient

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
