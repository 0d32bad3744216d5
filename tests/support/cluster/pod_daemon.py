"""The daemon's side of remote calls, in the test's event loop.

In a pod the program that an exec starts hands its work to the daemon. So it does here, which spares each exec the
import of all that the work needs. Where a daemon is there already, or with other settings, nothing is taken over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from registry_spooler.cli.registry_client.handover import socket_paths
from registry_spooler.cli.registry_client.remote_end import SharedRegistry
from registry_spooler.cli.registry_options import RegistrySettings
from registry_spooler.daemon.main import command
from registry_spooler.daemon.remote_jobs import RemoteJobs
from registry_spooler.health.remote import RemoteWork
from registry_spooler.push.delta_bases import SIGNATURES, SignatureStore
from registry_spooler.push.layer_cache import KnownBlobs

POLL_SECONDS = 0.002
PREFIX = "REGISTRY_SPOOLER_"


@asynccontextmanager
async def pod_daemon(spool: Path, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Take the calls for a spool directory from programs with these settings, which are this process's meanwhile."""
    path = await asyncio.to_thread(lambda: next(socket_paths(str(spool))))
    if os.path.exists(path):
        yield
        return
    settings = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    os.environ.update(settings)
    try:
        with command.make_context("registry-spooler", []) as context:
            registry = RegistrySettings.take(context.params)
        async with registry.client() as client, asyncio.TaskGroup() as tasks:
            shared = SharedRegistry(registry, client, KnownBlobs(), SignatureStore(spool / SIGNATURES))
            jobs = RemoteJobs(spool, shared, RemoteWork())
            serving = tasks.create_task(jobs.serve())
            while not os.path.exists(path):  # noqa: ASYNC110 - it says so to its log alone
                await asyncio.sleep(POLL_SECONDS)
            try:
                yield
            finally:
                jobs.stop()
                await serving
    finally:
        for name in settings:
            del os.environ[name]
