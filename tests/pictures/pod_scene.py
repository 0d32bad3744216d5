"""A pod without a cluster: the real registry and daemon, behind the tests' stand-in for the API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import demo
from support.cluster.apiserver import ApiServer, write_certificates
from support.programs.daemon_calls import settings
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.faultproxy import Fault, running_proxy
from support.registries.running_registry import RegistryOptions, RunningRegistry

HEALTH_PORT = "REGISTRY_SPOOLER_HEALTH_PORT"
PULL_HOST = "127.0.0.1:5001"
"""Where the nodes of an installation find the registry."""


@dataclass(frozen=True)
class PodScene:
    """A spooler at work, and a user who reaches it through the API server."""

    folder: Path
    """The user's."""
    spool: Spool
    spooler: RunningSpooler
    api: ApiServer
    kubeconfig: Path


@asynccontextmanager
async def pod_scene(folder: Path, faults: Sequence[Fault] = (), flags: Sequence[str] = ()) -> AsyncIterator[PodScene]:
    """Run it all in a folder, with these faults before the registry, and these flags of the daemon."""
    home, spool = folder / "home", folder / "spool"
    for each in (home, spool, folder / "certificates"):
        each.mkdir()
    registry = RunningRegistry(folder / "registry", RegistryOptions())
    registry.start()
    try:
        async with (
            running_proxy(registry.host, *faults) as proxy,
            ApiServer(spool, write_certificates(folder / "certificates"), registry=proxy.url) as api,
        ):
            api.health_port = demo.free_port(8086)
            api.environment = {"REGISTRY_SPOOLER_PULL_HOST": PULL_HOST}
            environment = settings(spool, proxy.url) | api.environment | {HEALTH_PORT: str(api.health_port)}
            flags = ("--health-port", str(api.health_port), "--chunk-size", "1MiB", "--tries", "1", *flags)
            with RunningSpooler(Spool(spool), proxy.url, *flags, environment=environment) as spooler:
                yield PodScene(home, spooler.spool, spooler, api, api.kubeconfig(home / "kubeconfig"))
    finally:
        registry.stop()
