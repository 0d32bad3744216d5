"""A user's terminal: programs run with a kubeconfig, a home and a folder of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from registry_spooler.cli.kubectl import program
from support.programs.run_here import run_here

PROGRAMS = Path(os.environ.get("PROGRAMS", Path(sys.executable).parent))
"""A folder with `kubectl-spool`; another one where the released program is tried."""


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.decode().splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Terminal:
    """Runs programs as a user would."""

    folder: Path
    kubeconfig: Path
    path: str = f"{PROGRAMS}:{os.environ['PATH']}"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """What every program here has in its environment."""
        return {"PATH": self.path, "HOME": str(self.folder), "KUBECONFIG": str(self.kubeconfig), "TERM": "xterm"}

    async def start(
        self,
        command: Sequence[str],
        stdin: int | IO[bytes] | None = None,
        stderr: int = asyncio.subprocess.PIPE,
        stdout: int = asyncio.subprocess.PIPE,
    ) -> asyncio.subprocess.Process:
        """Start a program."""
        environment = {"COLUMNS": "100", **self.variables, **self.environment}
        return await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
        )

    async def run(self, *command: str, code: int | None = 0, stdin: bytes | IO[bytes] | None = None) -> Done:
        """Run a program to its end, and see that its exit code is the expected one (None: any)."""
        source = asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin
        process = await self.start(command, source)
        stdout, stderr = await process.communicate(stdin if isinstance(stdin, bytes) else None)
        assert process.returncode is not None
        done = Done(process.returncode, stdout, stderr.decode())
        assert code in (None, done.code), (done.code, done.stdout[-2000:], done.stderr)
        return done

    async def spool(self, *arguments: str, code: int | None = 0, stdin: bytes | IO[bytes] | None = None) -> Done:
        """Run `kubectl-spool`: in this process (see `run_here`), unless another program is to be tried."""
        if "PROGRAMS" in os.environ:
            return await self.run("kubectl-spool", *arguments, code=code, stdin=stdin)
        ended = await asyncio.to_thread(
            run_here,
            program.main,
            ["kubectl-spool", *arguments],
            environment={"COLUMNS": "100", **self.variables, **self.environment},
            folder=self.folder,
            stdin=stdin,
        )
        done = Done(ended.code, ended.stdout, ended.stderr.decode())
        assert code in (None, done.code), (done.code, done.stdout[-2000:], done.stderr)
        return done
