"""The running daemon: client, pusher, spool and health put together, until a signal ends it.

SIGTERM and SIGINT stop it in good order: no new jobs, running ones get their grace, uploads are cancelled at
the registry. A second signal does not wait for them.
"""

from __future__ import annotations

import logging
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import anyio.abc

from registry_spooler.daemon.settings import DaemonSettings
from registry_spooler.daemon.work import Work
from registry_spooler.errors import SpoolerError
from registry_spooler.health import About, serve
from registry_spooler.options import RegistrySettings
from registry_spooler.push import KnownBlobs, Pusher
from registry_spooler.registry import RegistryClient
from registry_spooler.spool import Spool
from registry_spooler.tasks import foremost

_log: Final = logging.getLogger("registry_spooler.daemon")
STATE: Final = Path(".state", "layers")
"""In the spool directory: what plain layers were compressed to, shared by all spoolers there."""


def run(settings: DaemonSettings, registry: RegistrySettings, version: str) -> int:
    """Run until a signal comes; the exit code, 1 with a line in the log when it cannot even start."""
    # A lease on a file that is about to be removed breaks with this signal, whose default is to kill.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    # A bundle holds a lock, an open file, for each of its repositories.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        anyio.run(_serve, settings, registry, version)
    except Exception as exc:
        error = foremost(exc)
        if not isinstance(error, SpoolerError | OSError):
            raise
        _log.error("cannot run: %s", error)
        return 1
    return 0


async def _serve(settings: DaemonSettings, registry: RegistrySettings, version: str) -> None:
    spool = Spool(settings.spool)
    async with registry.client() as client, _stopped_by_signals(spool):
        about = About(
            version=version, registry=client.address, directory=str(settings.spool.directory), started=time.time()
        )
        known = KnownBlobs(settings.spool.directory / STATE)
        work = Work(client, Pusher(client, known, settings.push))
        health = settings.health
        async with serve(
            spool.board, about, ping=client.ping, address=health.address, port=health.port, hosts=health.hosts
        ) as serving:
            _log.info(
                "registry-spooler %s: %s to %s, health on port %d",
                version,
                settings.spool.directory,
                client.address,
                serving.port,
            )
            async with anyio.create_task_group() as tasks:
                # Beside the spool, which must not wait for a slow disk to look through what can be forgotten.
                tasks.start_soon(known.trim)
                tasks.start_soon(_warn_of_settings, client)
                await spool.run(work, client.ping)
    _log.info("stopped")


async def _warn_of_settings(client: RegistryClient) -> None:
    """Tell at the start what else is told at the first job only: it may be mended later, and is no reason to end."""
    for trouble in await client.unusable_settings():
        _log.warning("%s", trouble)


@asynccontextmanager
async def _stopped_by_signals(spool: Spool) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_listen, spool, tasks.cancel_scope)
        yield
        tasks.cancel_scope.cancel()


async def _listen(spool: Spool, everything: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        asked = False
        async for number in signals:
            _log.info("%s: stopping%s", signal.Signals(number).name, " at once" if asked else "")
            if asked:
                everything.cancel()
            asked = True
            spool.stop()
