"""The push engine as the commands use it: its settings, its sources, and the record of what it did."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import click

from registry_spooler.aio import in_thread
from registry_spooler.archive.compression import Compression
from registry_spooler.archive.source import Source, source_of
from registry_spooler.cli.registry_client.connection import Connection
from registry_spooler.errors import SourceUnreadable
from registry_spooler.oci.reference import Reference
from registry_spooler.push.layer_cache import KnownBlobs, cache_directory
from registry_spooler.push.pusher import Pusher, PushOptions
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.text import quoted, rfc3339

STANDARD_INPUT: Final = "standard input"


def tagged(text: str) -> Reference:
    """Read where an image is to be pushed to: a repository and a tag."""
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise click.UsageError("a digest cannot be chosen; push to a tag")
    return reference


def remembered() -> KnownBlobs:
    """What this user's earlier pushes found out; nothing where there is no folder to keep it in."""
    return KnownBlobs(cache_directory() / "layers")


def pusher(client: RegistryClient, compression: str, known: KnownBlobs | None) -> Pusher:
    """The engine, with nothing remembered from earlier pushes unless that is given."""
    return Pusher(client, known or KnownBlobs(None), PushOptions(compression=Compression(compression)))


@asynccontextmanager
async def opened(file: str, connection: Connection) -> AsyncGenerator[Source]:
    """A file, a named pipe, or `-` for standard input, which may be either."""
    if file == "-":
        yield connection.standard_input(STANDARD_INPUT)
        return
    try:
        fd = await in_thread(os.open, file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise click.UsageError(f"there is no file {quoted(file)}") from exc
    except OSError as exc:
        raise SourceUnreadable(file, exc.strerror or type(exc).__name__) from exc
    try:
        yield source_of(fd, file)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Clock:
    """When the work began."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_json(self) -> dict[str, Any]:
        """The times of a receipt, for work that has ended now."""
        finished = datetime.now(UTC)
        return {
            "attempts": 1,
            "started": rfc3339(self.started),
            "finished": rfc3339(finished),
            "seconds": round((finished - self.started).total_seconds(), 3),
        }
