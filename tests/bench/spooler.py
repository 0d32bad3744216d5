"""The product as its users run it: a daemon that watches a directory, fed with `mv`.

The time of a push runs from the rename into the spool until the tag is in the registry. Processor time runs until
the file has gone, so that the receipt and what follows it are paid for too.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import RunFailed, Usage, bytes_read, cpu_seconds, memory, tail
from bench.registry import Registry

START_TIMEOUT_SECONDS = 20.0
WORK_TIMEOUT_SECONDS = 3600.0
STOP_TIMEOUT_SECONDS = 20.0
QUICK_POLL_SECONDS = 0.0005
SLOW_POLL_SECONDS = 0.005


class Spooler:
    """One daemon on a fresh spool directory; both are gone at the end of the block.

    One that is not `asked` is left alone: whoever asks for its health keeps it awake for a while.
    """

    def __init__(self, folder: Path, registry: Registry, *options: str, asked: bool = True) -> None:
        self._folder = folder
        self._options = options
        self._asked = asked
        self._registry = registry
        self.spool = folder / "spool"
        self._log = folder / "spooler.log"
        self.health_port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start_seconds = 0.0
        """From the start of the process to the first 200 of `/ready`."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.spool.mkdir(parents=True)
        command = [program("registry-spooler"), "--directory", str(self.spool), "--registry", self._registry.host]
        command += ["--health-port", str(self.health_port), "--health-address", "127.0.0.1", *self._options]
        with self._log.open("wb") as log:
            began = time.monotonic()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=clean_environment()
            )
        try:
            self._until(self._is_ready if self._asked else self._works, QUICK_POLL_SECONDS, START_TIMEOUT_SECONDS)
        except BaseException:
            self._stop()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def stage(self, source: Path, name: str) -> Path:
        """Put a file beside the spool, on the same file system, without copying it."""
        path = self._folder / name
        os.link(source, path)
        return path

    def push(self, staged: Collection[Path], *, poll_seconds: float = SLOW_POLL_SECONDS) -> Usage:
        """Move files into the spool; returns when their tags are there and the files have gone."""
        absent = [image_of(path.name) for path in staged]
        spent = cpu_seconds(self.pid)
        began = time.monotonic()
        for path in staged:
            path.rename(self.spool / path.name)

        def all_tagged() -> bool:
            absent[:] = self._registry.absent(absent)
            return not absent

        self._until(all_tagged, poll_seconds)
        wall = time.monotonic() - began
        self.wait_until_empty(poll_seconds)
        return Usage(wall_seconds=wall, cpu_seconds=cpu_seconds(self.pid) - spent, peak_bytes=memory(self.pid)[1])

    def push_again(self, staged: Path, *, poll_seconds: float = QUICK_POLL_SECONDS) -> tuple[float, int]:
        """Push what is tagged already: seconds until the file has gone, and the bytes that were read for it."""
        read = bytes_read(self.pid)
        began = time.monotonic()
        staged.rename(self.spool / staged.name)
        self.wait_until_empty(poll_seconds)
        return time.monotonic() - began, bytes_read(self.pid) - read

    def wait_until_empty(self, poll_seconds: float = SLOW_POLL_SECONDS) -> None:
        """Wait until every file has gone from the spool."""
        self._until(lambda: not _visible(self.spool), poll_seconds)

    def _until(self, done: Callable[[], bool], poll_seconds: float, timeout: float = WORK_TIMEOUT_SECONDS) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while not done():
            if self._process.poll() is not None:
                raise RunFailed(f"the spooler ended with {self._process.returncode}: {tail(self._log)}")
            if failed := _visible(self.spool / ".failed", ".error.json"):
                raise RunFailed(json.loads((self.spool / ".failed" / failed[0]).read_text())["error"])
            if time.monotonic() > deadline:
                raise RunFailed(f"the spooler did not get there in time: {tail(self._log)}")
            time.sleep(poll_seconds)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=1)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _works(self) -> bool:
        return (self.spool / ".work").is_dir()

    def _stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def program(name: str) -> str:
    """Where a program of the project is: beside the interpreter that runs the bench."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise RunFailed(f"{path} is not installed")
    return str(path)


def clean_environment() -> dict[str, str]:
    """What every contestant's process gets: the user's environment without what would change a Python program."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "REGISTRY_SPOOLER"))}


def image_of(name: str) -> tuple[str, str]:
    """The repository and tag that a file name asks for: `repository.suffix`, or `repository:tag.suffix`."""
    repository, colon, rest = name.partition(":")
    return (repository, rest.partition(".")[0]) if colon else (name.partition(".")[0], "latest")


def _visible(folder: Path, suffix: str = "") -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".") and name.endswith(suffix)]
    except FileNotFoundError:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
