"""`registry-client --remote` as a container's runtime starts it, and a daemon beside it that has the same settings."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Self
from urllib.request import Request, urlopen

from support.programs.running_spooler import RunningSpooler, Spool, program

SECONDS = 30.0


def settings(spool: Path, registry_url: str) -> dict[str, str]:
    """What the environment of a container says to both programs."""
    return {
        "REGISTRY_SPOOLER_DIRECTORY": str(spool),
        "REGISTRY_SPOOLER_REGISTRY": registry_url,
        "REGISTRY_SPOOLER_HEALTH_PORT": "8086",
    }


class Daemon(RunningSpooler):
    """A daemon that takes calls."""

    def __init__(self, spool: Path, registry_url: str) -> None:
        self.settings = settings(spool, registry_url)
        super().__init__(Spool(spool), registry_url, "-vv", environment=self.settings)

    def start(self) -> None:
        super().start()
        self.wait_for_log("remote calls at /")

    def status(self) -> dict[str, Any]:
        """What its page says of remote calls."""
        request = Request(f"{self.health_url}/status", headers={"Accept": "application/json"})
        with urlopen(request, timeout=SECONDS) as answer:
            return dict(json.load(answer)["remote"])


class FarProcess:
    """A `registry-client --remote` with pipes for all three streams, as an exec has them."""

    def __init__(self, environment: dict[str, str], *arguments: str, before: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, program("registry-client"), "--remote", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", **environment},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.hang_up()
        self.ended()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def write(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def hang_up(self) -> None:
        """Close standard input, as the runtime does when the caller has gone."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(SECONDS)


class RemoteCall(FarProcess):
    """One exec whose output is read by threads as it comes."""

    def __init__(
        self, environment: dict[str, str], *arguments: str, stdin_bytes: int = 0, before: Sequence[str] = ()
    ) -> None:
        super().__init__(environment, "--stdin-bytes", str(stdin_bytes), *arguments, before=before)
        self.stdout = b""
        self._lines: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self.process.stderr,)),
            threading.Thread(target=self._read_answer, args=(self.process.stdout,)),
        ]
        for reader in self._readers:
            reader.start()

    def ended(self) -> int:
        """Wait for its end, and for all that it said; the exit code."""
        code = super().ended()
        for reader in self._readers:
            reader.join(SECONDS)
        return code

    def line(self, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a line on standard error."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self._lines if matches(line)), None)

        with self._news:
            assert self._news.wait_for(lambda: found() is not None, SECONDS), self._lines
            line = found()
            assert line is not None
            return line

    @property
    def error(self) -> dict[str, Any]:
        """The line that tells what went wrong."""
        return self.line(lambda line: "error" in line)

    @property
    def last_word(self) -> dict[str, Any] | None:
        """The last word, of a call that has ended."""
        return next((line for line in self._lines if "done" in line), None)

    def _read_lines(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            with self._news:
                self._lines.append(json.loads(line))
                self._news.notify_all()

    def _read_answer(self, pipe: IO[bytes]) -> None:
        self.stdout = pipe.read()
