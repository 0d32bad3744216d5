"""The namespaces of a node: made, entered, and ended with everything that runs in them.

Programs are started and ended by their numbers within the namespaces, so that nothing else on the machine can be hit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster import init

POLL_SECONDS = 0.1
LOG_TAIL_CHARACTERS = 2000
OWN = ("--net", "--mount", "--uts", "--ipc", "--pid")
BACKGROUND = 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null & echo $!'
"""Start the rest of the command line for itself and print its number: its parent is gone at once, so init adopts it."""


@dataclass(frozen=True)
class Namespaces:
    """What isolates one node. `folder` is the node's; its parent is the cluster's."""

    folder: Path

    def make(self, programs: Path, within: Namespaces | None = None) -> None:
        """Start the process that holds them; `within` another node's processes, so that it ends with those."""
        for name in ("var/tmp", "var/log", "var/lib", "tmp", "kernel", "pids", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        command = [
            *(within.enter("--pid") if within is not None else ()),
            *("unshare", *OWN, "--fork", sys.executable, "-I", init.__file__),
            *(str(self.folder.parent), str(self.folder), str(programs), self.folder.name),
        ]
        log = self.folder / "logs" / "init.log"
        subprocess.run(["sh", "-c", BACKGROUND, "sh", str(log), *command], check=True, capture_output=True)
        wait_until(lambda: self.pid is not None, f"the namespaces of {self.folder.name}", log)

    @property
    def pid(self) -> int | None:
        """The process that holds the namespaces, or None if it does not run (any more)."""
        try:
            process = json.loads((self.folder / "init.json").read_text())
            stat = Path(f"/proc/{process['pid']}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return process["pid"] if int(stat.rpartition(")")[2].split()[19]) == process["started"] else None

    def enter(self, *which: str) -> list[str]:
        """Return the start of a command line that runs the rest of it in these namespaces (all of them by default)."""
        if (pid := self.pid) is None:
            raise RuntimeError(f"{self.folder.name} does not run")
        return ["nsenter", f"--target={pid}", *(which or OWN), "--"]

    def run(
        self, *command: str | Path, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside, and wait for it."""
        return subprocess.run(
            [*self.enter(), *map(str, command)], check=check, input=text, capture_output=True, text=True
        )

    def start(self, name: str, command: list[str]) -> None:
        """Start a program inside that goes on for itself. Its output goes to `logs/NAME.log`."""
        log = f"{init.CLUSTER}/{self.folder.name}/logs/{name}.log"
        started = self.run("sh", "-c", BACKGROUND, "sh", log, *command)
        self._pid_file(name).write_text(started.stdout)

    def kill(self, name: str) -> None:
        """End a program by SIGKILL, and return when it is gone. One that does not run is fine."""
        if not self.is_running(name):
            return
        number = self._pid_file(name).read_text().strip()
        self.run("sh", "-c", 'kill -s KILL "$1"', "sh", number, check=False)
        wait_until(lambda: not self.is_running(name), f"the end of {name}", self.folder / "logs" / f"{name}.log")

    def is_running(self, name: str) -> bool:
        """Return whether the program that was started under this name still runs.

        A zombie does: its other threads may still hold its ports. What is over is collected by init.
        """
        pid_file = self._pid_file(name)
        return pid_file.exists() and Path(f"/proc/{self.pid}/root/proc/{pid_file.read_text().strip()}").exists()

    def programs(self) -> list[str]:
        """Return the names of what has been started, in alphabetical order."""
        return sorted(path.name for path in (self.folder / "pids").iterdir())

    def end(self) -> None:
        """End the process that holds them, and with it everything inside."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.pid is None, f"the end of {self.folder.name}", None)

    def _pid_file(self, name: str) -> Path:
        return self.folder / "pids" / name


def wait_until(condition: Callable[[], bool], what: str, log: Path | None, seconds: float = 120) -> None:
    """Return when the condition holds; raise TimeoutError with the end of the log when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if log and log.exists() else ""
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s\n{tail}")
        time.sleep(POLL_SECONDS)
