"""The running daemon: client, pusher, spool and health put together, until a signal ends it.

Pieces of up to a megabyte go from thread to thread. The image sets GLIBC_TUNABLES besides, so that glibc has one
heap without caches; what that is worth varies, and the bound on memory holds without it.

SIGTERM and SIGINT stop it in good order: no new jobs, running ones get their grace, uploads are cancelled at
the registry. A second signal does not wait for them.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from registry_spooler.aio import foremost, in_thread
from registry_spooler.archive.opening import is_image_archive
from registry_spooler.archive.source import FileSource
from registry_spooler.cli.registry_client.remote_end import SharedRegistry
from registry_spooler.cli.registry_options import RegistrySettings
from registry_spooler.daemon.remote_jobs import RemoteJobs
from registry_spooler.daemon.stop_signals import STOP_SIGNALS
from registry_spooler.errors import SpoolerError
from registry_spooler.health.remote import RemoteWork
from registry_spooler.health.server import serve
from registry_spooler.health.status import About
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.push.delta_bases import SIGNATURES, SignatureStore
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.pusher import Pusher, PushOptions
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.filename import Action
from registry_spooler.spool.scheduling.job import Job
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.spool import Spool


def give_back() -> None:
    """Have the C library hand what is free to the system, also between what is in use; takes some milliseconds.

    Measured after four archives at once: 50 MiB stay resident, not 85.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """Where probes and scrapers are answered."""

    address: str = ""
    """Empty: on every address, IPv4 and IPv6, since the kubelet's probes come from outside the pod."""
    port: int = 8086
    spool_limit_bytes: int | None = None
    """What the spool directory may hold, where its file system can hold more. None: no limit but that."""
    hosts: tuple[str, ...] = ()
    """Names, beside the machine's own, under which page and status are answered: an ingress's, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """All but the log's, and the registry's own, which `options` reads for every program."""

    spool: SpoolSettings
    push: PushOptions
    health: HealthSettings


LARGE_BYTES: Final = 16 << 20
"""A push of less leaves nothing worth giving back."""


@dataclass(frozen=True, slots=True)
class Work:
    """The spool's handler for one registry."""

    client: RegistryClient
    pusher: Pusher

    async def __call__(self, job: Job, file: OpenedFile, progress: Progress) -> tuple[ImageResult, ...]:
        """Do what the file asks for; raises the project's errors, and OSError when the file cannot be read."""
        if job.action is Action.DELETE:
            assert job.reference is not None  # a bundle's name cannot ask for it
            return (await self._delete(job.reference),)
        source = FileSource(file.fd, name=file.name)
        try:
            return await self._push(job, source, file, progress)
        finally:
            if source.size >= LARGE_BYTES:
                with anyio.CancelScope(shield=True):
                    await in_thread(give_back)

    async def _push(
        self, job: Job, source: FileSource, file: OpenedFile, progress: Progress
    ) -> tuple[ImageResult, ...]:
        # Whoever forgot the suffix meant the image; a bundle has to have one.
        if job.filename.is_archive or await is_image_archive(source):
            return await self.pusher.push_archive(source, job.reference, progress, before_tag=file.check_unchanged)
        assert job.reference is not None
        return (await self.pusher.push_file(source, job.reference, progress, before_tag=file.check_unchanged),)

    async def _delete(self, reference: Reference) -> ImageResult:
        found = await self.client.head_manifest(reference)
        if found is None or not await self.client.delete_tag(reference):
            return ImageResult(reference=reference, digest=None)
        return ImageResult(reference=reference, digest=found.digest, media_type=found.media_type)


_log: Final = logging.getLogger("registry_spooler.daemon")
STATE: Final = Path(".state", "layers")
"""In the spool directory: what plain layers were compressed to, shared by all spoolers there."""


def run(settings: DaemonSettings, registry: RegistrySettings, version: str) -> int:
    """Run until a signal comes; the exit code, 1 with a line in the log when it cannot even start."""
    # A lease on a file that is about to be removed breaks with this signal, whose default is to kill.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    # Each of many jobs at once has several connections and files open.
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
    spool, remote = Spool(settings.spool), RemoteWork()
    known = KnownBlobs(settings.spool.directory / STATE)
    signatures = SignatureStore(settings.spool.directory / SIGNATURES)
    async with registry.client() as client:
        shared = SharedRegistry(registry, client, known, signatures)
        jobs = RemoteJobs(settings.spool.directory, shared, remote)

        def stop() -> None:
            spool.stop()
            jobs.stop()

        with anyio.CancelScope() as everything, _stopped_by_signals(stop, everything):
            await _work(settings, client, known, spool, jobs, remote, version)
    _log.info("stopped")


async def _work(
    settings: DaemonSettings,
    client: RegistryClient,
    known: KnownBlobs,
    spool: Spool,
    jobs: RemoteJobs,
    remote: RemoteWork,
    version: str,
) -> None:
    about = About(
        version=version,
        registry=client.address,
        pull_host=client.pull_host,
        directory=str(settings.spool.directory),
        started=time.time(),
        spool_limit_bytes=settings.health.spool_limit_bytes,
    )
    work = Work(client, Pusher(client, known, settings.push))
    health = settings.health
    async with serve(
        spool.state,
        about,
        ping=client.ping,
        address=health.address,
        port=health.port,
        hosts=health.hosts,
        request_retries=client.retries,
        remote=remote,
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
            tasks.start_soon(jobs.serve)
            await spool.run(work, client.ping)
            jobs.stop()


async def _warn_of_settings(client: RegistryClient) -> None:
    """Tell at the start what else is told at the first job only: it may be mended later, and is no reason to end."""
    for trouble in await client.unusable_settings():
        _log.warning("%s", trouble)


@contextmanager
def _stopped_by_signals(stop: Callable[[], None], everything: anyio.CancelScope) -> Iterator[None]:
    is_asked = False

    def take() -> None:
        nonlocal is_asked
        name = STOP_SIGNALS.received[-1].name
        _log.info("%s: stopping%s", name, " at once" if is_asked else "")
        if is_asked:
            everything.cancel()
        is_asked = True
        stop()

    loop = asyncio.get_running_loop()

    def hand_over() -> None:
        loop.call_soon_threadsafe(take)

    STOP_SIGNALS.tell(hand_over)
    try:
        yield
    finally:
        STOP_SIGNALS.tell(lambda: None)
