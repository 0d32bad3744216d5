"""The real daemon on a folder of the test's own, and what a user does with such a folder.

Outcomes are waited for with inotify, as they happen: nothing here polls or sleeps.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from asyncinotify import Inotify, Mask

from support.programs.line_log import LineLog

START_TIMEOUT_SECONDS = 30.0
OUTCOME_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 40.0
LONGEST_BLINK_SECONDS = 0.5
"""How often to look at the clock when nothing happens."""
HEALTH_PORT = r"health on port (\d+)"
CHANGES = Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE | Mask.CLOSE_WRITE


def program(name: str) -> str:
    """The path of one of the project's programs, as installed beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None, f"{name} is not installed"
    return found


class Spool:
    """A spool directory as its users see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in (folder, folder / ".receipts", folder / ".failed"):
            part.mkdir(exist_ok=True)

    def drop(self, name: str, content: bytes | Path) -> None:
        """Put a file in as everybody should: write `NAME~`, rename it to NAME."""
        writing = self.folder / f"{name}~"
        if isinstance(content, Path):
            shutil.copyfile(content, writing)
        else:
            writing.write_bytes(content)
        writing.rename(self.folder / name)

    def receipt(self, name: str, timeout_seconds: float = OUTCOME_TIMEOUT_SECONDS) -> dict[str, Any]:
        """Wait until the file is done; its receipt. An AssertionError when it failed."""
        path, failure = self.folder / ".receipts" / f"{name}.json", self.folder / ".failed" / f"{name}.error.json"
        gone = self.folder / name
        self.wait_until(lambda: failure.exists() or (path.exists() and not gone.exists()), timeout_seconds)
        assert not failure.exists(), failure.read_text()
        return dict(json.loads(path.read_bytes()))

    def failure(self, name: str) -> dict[str, Any]:
        """Wait until the file has failed; its record."""
        path, kept = self.folder / ".failed" / f"{name}.error.json", self.folder / ".failed" / name
        self.wait_until(lambda: path.exists() and kept.exists())
        return dict(json.loads(path.read_bytes()))

    def receipt_after_failure(self, name: str) -> dict[str, Any]:
        """As `receipt`, for a file that has failed before."""
        path = self.folder / ".receipts" / f"{name}.json"
        self.wait_until(lambda: path.exists() and not (self.folder / name).exists())
        return dict(json.loads(path.read_bytes()))

    @property
    def waiting(self) -> list[str]:
        """The names that are neither done nor failed."""
        return sorted(name for name in os.listdir(self.folder) if not name.startswith("."))

    def is_empty_before(self, deadline: float) -> bool:
        """Wait until no file waits any more; false when the deadline (of `time.monotonic`) comes first."""
        return self._comes_true(lambda: not self.waiting, deadline)

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float = OUTCOME_TIMEOUT_SECONDS) -> None:
        """Wait for something in the spool, its receipts or its failures."""
        came_true = self._comes_true(condition, time.monotonic() + timeout_seconds)
        assert came_true, f"it did not happen; the spool holds {self.waiting}"

    def _comes_true(self, condition: Callable[[], bool], deadline: float) -> bool:
        with Inotify(sync_timeout=LONGEST_BLINK_SECONDS) as inotify:
            for folder in (self.folder, self.folder / ".receipts", self.folder / ".failed"):
                inotify.add_watch(folder, CHANGES)
            while not condition():
                if time.monotonic() >= deadline:
                    return False
                next(iter(inotify), None)
        return True


class RunningSpooler:
    """The program `registry-spooler`, from its start to its end."""

    def __init__(
        self,
        spool: Spool,
        registry_url: str,
        *flags: str,
        environment: dict[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> None:
        """`before` is a command that runs the program in its own place."""
        self.spool = spool
        self.command = [
            *before,
            program("registry-spooler"),
            *("--directory", str(spool.folder), "--registry", registry_url, "--health-port", "0", *flags),
        ]
        self.environment = {**os.environ, **(environment or {})}
        self.health_url = ""
        self.log: LineLog | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.terminate()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    @property
    def peak_bytes(self) -> int:
        """The most resident memory that it has had."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def start(self) -> None:
        """Start it; returns when it answers signals and the health port, and is about to look at the spool."""
        self.launch()
        try:
            port = self.wait_for_log(HEALTH_PORT)[1]
        except BaseException:
            self.kill()
            raise
        self.health_url = f"http://127.0.0.1:{port}"

    def launch(self) -> None:
        """Start it and do not wait."""
        self._process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self.log = LineLog(self._process.stdout)

    def wait_for_log(self, pattern: str, timeout_seconds: float = START_TIMEOUT_SECONDS) -> re.Match[str]:
        """Wait for a line in the log, since the start. An AssertionError when the program ends without it."""
        assert self.log is not None
        return self.log.wait_for(pattern, timeout_seconds)

    def terminate(self) -> int:
        """Ask it to stop (SIGTERM); its exit code."""
        self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        """End it without a word (SIGKILL)."""
        self.process.kill()
        self.ended()

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        try:
            code = self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            assert self.log is not None
            self.log.join()
            self._process = None
        return code
