"""`list` and `tags`: what is in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from registry_spooler.command.connection import Connection, connected
from registry_spooler.command.parallel import in_order
from registry_spooler.command.printing import say, say_json
from registry_spooler.errors import NotFound
from registry_spooler.reference import check_repository

if TYPE_CHECKING:
    from registry_spooler.registry import RegistryClient

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")


@click.command("list")
@click.option("--tags", "with_tags", is_flag=True, help="Print a REPO:TAG line for every image.")
@json_option
@connected()
def list_images(connection: Connection, with_tags: bool, as_json: bool) -> None:
    """List the repositories of the registry.

    A repository whose last image has been deleted stays in the registry's own list; --tags leaves it out.
    """

    async def work(client: RegistryClient) -> None:
        lines = _images(client) if with_tags else client.list_repositories()
        await _print(lines, as_json)

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


async def _print(lines: AsyncIterator[str], as_json: bool) -> None:
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
