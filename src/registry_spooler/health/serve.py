"""All of the health side, put together and run while a context lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from registry_spooler.health.answers import Answers
from registry_spooler.health.checks import Checks
from registry_spooler.health.hosts import Hosts
from registry_spooler.health.lookouts import Lookouts
from registry_spooler.health.metrics import Metrics
from registry_spooler.health.page import Page
from registry_spooler.health.pulse import Pulse
from registry_spooler.health.registry_watch import Ping
from registry_spooler.health.server import HealthServer, listening
from registry_spooler.health.status import About, Status
from registry_spooler.health.volume import Volume
from registry_spooler.spool import Board, JobEnd
from registry_spooler.threads import in_thread


@dataclass(frozen=True, slots=True)
class Health:
    """What runs, for whoever started it."""

    port: int
    checks: Checks


@asynccontextmanager
async def serve(
    board: Board, about: About, *, ping: Ping, address: str, port: int, hosts: Iterable[str] = ()
) -> AsyncIterator[Health]:
    """Serve until the context is left. OSError when the port cannot be listened on.

    `board` is the spool's; `ping` asks the registry and raises SpoolerError when it is not there; an empty `address`
    means all of the machine's; port 0 lets the system choose; `hosts` are further names that `/` and `/status` are
    answered under.
    """
    pulse, volume = Pulse(), Volume(Path(about.directory), about.spool_limit_bytes)
    checks = Checks(board, pulse, volume)
    metrics = Metrics(about.version, board, checks, volume, pulse)
    page = await in_thread(Page.read)
    lookouts = Lookouts(board, checks, pulse, ping, volume.look, metrics.process.look)
    answers = Answers(page, checks, metrics, Status(about, board, checks, volume), lookouts)
    server = HealthServer(answers, Hosts((*hosts, address)))

    def job_ended(end: JobEnd) -> None:
        metrics.job_ended(end)
        lookouts.job_ended(end)

    board.on_job_start, board.on_job_end = lookouts.job_started, job_ended
    await volume.look()
    checks.look()
    async with anyio.create_task_group() as tasks, listening(server, address, port) as listening_port:
        lookouts.start(tasks)
        yield Health(listening_port, checks)
        tasks.cancel_scope.cancel()
