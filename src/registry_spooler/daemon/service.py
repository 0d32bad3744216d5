"""The running daemon: client, pusher, spool and health put together, until a signal ends it.

SIGTERM and SIGINT stop it in good order: no new jobs, running ones get their grace, uploads are cancelled at
the registry. A second signal does not wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio

from registry_spooler.daemon.settings import DaemonSettings
from registry_spooler.daemon.stopping import STOP_SIGNALS
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
    STOP_SIGNALS.started()
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
    async with registry.client() as client:
        with anyio.CancelScope() as everything, _stopped_by_signals(spool, everything):
            await _work(settings, client, spool, version)
    _log.info("stopped")


async def _work(settings: DaemonSettings, client: RegistryClient, spool: Spool, version: str) -> None:
    about = About(
        version=version,
        registry=client.address,
        directory=str(settings.spool.directory),
        started=time.time(),
        spool_limit_bytes=settings.health.spool_limit_bytes,
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


async def _warn_of_settings(client: RegistryClient) -> None:
    """Tell at the start what else is told at the first job only: it may be mended later, and is no reason to end."""
    for trouble in await client.unusable_settings():
        _log.warning("%s", trouble)


@contextmanager
def _stopped_by_signals(spool: Spool, everything: anyio.CancelScope) -> Iterator[None]:
    is_asked = False

    def stop() -> None:
        nonlocal is_asked
        name = STOP_SIGNALS.received[-1].name
        _log.info("%s: stopping%s", name, " at once" if is_asked else "")
        if is_asked:
            everything.cancel()
        is_asked = True
        spool.stop()

    loop = asyncio.get_running_loop()

    def hand_over() -> None:
        loop.call_soon_threadsafe(stop)

    STOP_SIGNALS.tell(hand_over)
    try:
        yield
    finally:
        STOP_SIGNALS.tell(lambda: None)
