"""Spoolers in processes of their own, to be killed: one process has everything imported and forks them in no time.

    python spooler_nursery.py        reads commands, one JSON object a line, and answers each with a line: a number

A spooler appends what it does to a log: `ready`, `start`, `push` and `end` lines, each written at once. It stops on
SIGTERM with exit code 0. With `die_at` it kills itself at that one of the calls to the system that change the disk.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio

from registry_spooler.aio import in_thread
from registry_spooler.backoff import Backoff
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.filename import Action
from registry_spooler.spool.scheduling.job import Job
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.spool import Spool

DEADLY = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "fcntl.flock", "fcntl.fcntl", "os.link"}
"""Audit events (https://docs.python.org/3/library/audit_events.html) around which the disk changes."""


class Nursery:
    """The test's side: starts spoolers, kills them, and ends with everything that it started."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._children: set[int] = set()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        for pid in list(self._children):
            self.kill(pid)
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, **command: Any) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        return int(self._process.stdout.readline())

    def start(self, directory: Path, log: Path, **options: Any) -> int:
        """Start a spooler; its process id."""
        pid = self._ask(do="start", directory=str(directory), log=str(log), **options)
        self._children.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """kill -9, and wait until it is dead."""
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def stop(self, pid: int) -> int:
        """SIGTERM; the exit code."""
        os.kill(pid, signal.SIGTERM)
        return self.wait(pid)

    def is_dead(self, pid: int) -> bool:
        """Look whether it has died; `wait` for it then."""
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def wait(self, pid: int) -> int:
        """Wait for the end of a spooler; its exit code, or minus the signal's number."""
        self._children.discard(pid)
        return self._ask(do="wait", pid=pid)


@dataclass(frozen=True, slots=True)
class Logged:
    """One line of the spoolers' common log."""

    event: str
    name: str
    pid: int
    seconds: float
    content: str

    @classmethod
    def read(cls, log: Path) -> list[Logged]:
        if not log.exists():
            return []
        rows = (json.loads(line) for line in log.read_text().splitlines())
        return [cls(**row) for row in rows]


class LoggingHandler:
    """Pushes nothing anywhere, and says so in the log."""

    def __init__(
        self, log: Path, *, fails: bool = False, seconds: float = 0.0, dies_of: str = "", hangs: bool = False
    ) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._fails = fails
        self._seconds = seconds
        self._dies_of = dies_of
        self._hangs = hangs

    async def __call__(self, job: Job, file: OpenedFile, progress: Progress) -> tuple[ImageResult, ...]:
        self.note("start", job.name)
        content = b"" if job.action is Action.DELETE else await in_thread(os.pread, file.fd, file.size, 0)
        if self._hangs:
            await anyio.sleep_forever()
        if job.name == self._dies_of:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._seconds:
            await anyio.sleep(random.uniform(0, self._seconds))
        if self._fails:
            raise ArchiveError("no archive")
        file.check_unchanged()
        self.note("push", job.name, content)
        return (ImageResult(reference=job.reference or Reference("bundled"), digest=Digest.of(content)),)

    def note(self, event: str, name: str, content: bytes = b"") -> None:
        row = {
            "event": event,
            "name": name,
            "pid": os.getpid(),
            "seconds": time.monotonic(),
            "content": content.decode(),
        }
        os.write(self._log, json.dumps(row).encode() + b"\n")


def _spool(command: dict[str, Any]) -> None:
    """A child's whole life."""
    handler = LoggingHandler(
        Path(command["log"]),
        fails=command.get("fails", False),
        seconds=command.get("seconds", 0.0),
        dies_of=command.get("dies_of", ""),
        hangs=command.get("hangs", False),
    )
    settings = SpoolSettings(
        directory=Path(command["directory"]),
        backoff=Backoff(base_seconds=0.01, cap_seconds=0.1),
        settle_seconds=0.01,
        rescan_seconds=command.get("rescan_seconds", 60.0),
    )
    spool = Spool(settings)
    spool.state.on_job_end = lambda end: handler.note("end", end.name, end.outcome.value.encode())

    async def until_told() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            handler.note("ready", "")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(spool.run, handler)
                async for _ in signals:
                    spool.stop()
                    break

    if "die_at" in command:
        _die_at(command["die_at"], command["directory"])
    anyio.run(until_told)


def _die_at(number: int, directory: str) -> None:
    counted = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal counted
        if event not in DEADLY:
            return
        name = str(arguments[0])
        # A plain name is one in a folder that the spooler has open; "." lists it and changes nothing.
        if event.startswith("fcntl.") or name.startswith(directory) or ("/" not in name and name != "."):
            counted += 1
            if counted == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    """Fork spoolers as told, until there are no more commands."""
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "wait":
            _, status = os.waitpid(command["pid"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - it is the answer
        elif pid := os.fork():
            print(pid, flush=True)  # noqa: T201 - it is the answer
        else:
            code = 1
            try:
                _spool(command)
                code = 0
            finally:
                os._exit(code)


if __name__ == "__main__":
    main()
