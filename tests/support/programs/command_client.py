"""`registry-client` as a user or a script runs it: in the test's process, or in one of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from registry_spooler.cli.registry_client.command_line import main
from support.programs.run_here import Ended, run_here
from support.programs.running_spooler import program
from support.registries.verify import Registry

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Client:
    """`registry-client` with its settings in the environment, as in a pod."""

    registry: Registry
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "REGISTRY_CLIENT_REGISTRY": self.registry.url,
            **self.environment,
        }

    def run(self, *arguments: str, code: int = 0, stdin: bytes | IO[bytes] = b"") -> Ended:
        """Run to the end in this process (see `run_here`), and see that the exit code is the expected one."""
        if arguments[:1] == ("receive",):  # its threads end with its process
            return self.run_program(*arguments, code=code, stdin=stdin)
        command = ["registry-client", *arguments]
        done = run_here(main, command, environment=self.variables, folder=self.folder, stdin=stdin)
        assert done.code == code, (done.stdout[-2000:], done.stderr.decode())
        return done

    def run_program(self, *arguments: str, code: int = 0, stdin: bytes | IO[bytes] = b"") -> Ended:
        """Do the same in a process of its own."""
        source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done = subprocess.run(
            [program("registry-client"), *arguments],
            capture_output=True,
            env=self.variables,
            cwd=self.folder,
            timeout=TIMEOUT_SECONDS,
            check=False,
            **source,
        )
        assert done.returncode == code, (done.stdout[-2000:], done.stderr.decode())
        return Ended(done.returncode, done.stdout, done.stderr)

    def lines(self, *arguments: str, stdin: bytes = b"") -> list[str]:
        return self.run(*arguments, stdin=stdin).stdout.decode().splitlines()

    def json(self, *arguments: str, stdin: bytes = b"") -> Any:
        return json.loads(self.run(*arguments, stdin=stdin).stdout)

    def error(self, *arguments: str, code: int, stdin: bytes = b"") -> str:
        """The one line on standard error of a command that fails."""
        done = self.run(*arguments, code=code, stdin=stdin)
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("registry-client: ")
        return line.removeprefix("registry-client: ")

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [program("registry-client"), *arguments],
            env=self.variables,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
