"""`registry-client` in one pod, called from here.

Each call is one exec. Standard output is the answer; standard error is JSON, one object a line: signs of life,
progress, and at the end the error, which is raised here as a RemoteError. A call without input keeps standard input
open, so that the program sees its caller go; a call with input ends it by closing where the channel can
(version 5), and else by telling its length. Which it is, the first call finds out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from registry_spooler.kube.cluster import Cluster
from registry_spooler.kube.errors import ExecNotStarted, RemoteError
from registry_spooler.kube.exec import SILENCE_SECONDS, execute, run
from registry_spooler.kube.frames import Channel, Output
from registry_spooler.kube.pods import Container
from registry_spooler.kube.rate import STEP_BYTES, RateLimit

if TYPE_CHECKING:
    from typing_extensions import Buffer

PROGRAM: Final = "registry-client"
ANSWER_LIMIT_BYTES: Final = 64 << 20
"""A catalogue of a million tags is less."""
LINE_LIMIT_BYTES: Final = 256 * 1024
_PLAIN_LINES_KEPT: Final = 5
_USAGE: Final = 2
_NOT_STARTED: Final = frozenset({126, 127})
"""What a shell, and some runtimes, give for a program that cannot be run."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a command reads: `pieces` gives exactly `size` bytes."""

    size: int
    pieces: AsyncGenerator[Buffer]

    @classmethod
    def of(cls, content: bytes) -> Input:
        """Bytes that are at hand."""
        return cls(len(content), _once(content))


class StderrReader:
    """Reads the far side's standard error: plain code, fed bytes as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self.error: dict[str, Any] | None = None
        self.plain: list[str] = []
        """The last lines that were no JSON: a traceback, or the words of another program."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Signs of life and progress are passed over: that they came is what counts."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LINE_LIMIT_BYTES:]
        for line in lines:
            self._read(line)

    def close(self) -> None:
        """Take note that no more comes."""
        self._read(self._rest)
        self._rest = b""

    def _read(self, line: bytes) -> None:
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            if text := line.decode("utf-8", "replace").strip():
                self.plain = [*self.plain, text[:500]][-_PLAIN_LINES_KEPT:]
        elif "error" in document:
            self.error = document


class Remote:
    """`registry-client` in one container."""

    def __init__(
        self,
        cluster: Cluster,
        container: Container,
        *,
        rate: RateLimit | None = None,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self.cluster = cluster
        self.container = container
        self._rate = rate
        self.silence_seconds = silence_seconds
        self._closes_stdin: bool | None = None

    async def version(self) -> str:
        """The version of the program in the pod; also finds out which version of the channel the server speaks."""
        answer = await self._exec([PROGRAM, "--version"], None, None)
        return answer.decode().strip().rpartition(" ")[2]

    async def call(
        self,
        *arguments: str,
        stdin: Input | None = None,
        on_stdout: Callable[[bytes], Awaitable[None]] | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> bytes:
        """Run one command and return what it wrote, which is nothing where `on_stdout` took it.

        `on_sent` is told the size of each piece of input that the connection has taken.
        RemoteError when the command failed; other KubeErrors when it could not be run to its end.
        """
        command = [PROGRAM, "--remote"]
        if stdin is None:
            command += ["--stdin-bytes", "0"]
        elif not await self._can_close_stdin():
            command += ["--stdin-bytes", str(stdin.size)]
        if stdin is not None and on_sent is not None:
            stdin = Input(stdin.size, _told(stdin.pieces, on_sent))
        return await self._exec([*command, *arguments], stdin, on_stdout)

    async def call_json(
        self, *arguments: str, stdin: Input | None = None, on_sent: Callable[[int], None] | None = None
    ) -> Any:
        """Run one command whose answer is JSON."""
        answer = await self.call(*arguments, stdin=stdin, on_sent=on_sent)
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError as exc:
            raise self._failed(f"{PROGRAM} {arguments[0]} did not answer with JSON", 1) from exc

    async def _can_close_stdin(self) -> bool:
        if self._closes_stdin is None:
            await self.version()
        return bool(self._closes_stdin)

    async def _exec(
        self,
        command: list[str],
        stdin: Input | None,
        on_stdout: Callable[[bytes], Awaitable[None]] | None,
    ) -> bytes:
        answer = bytearray()
        stderr = StderrReader()

        async def take(output: Output) -> None:
            if output.channel is Channel.STDERR:
                stderr.feed(output.data)
            elif on_stdout is not None:
                await on_stdout(output.data)
            elif len(answer) + len(output.data) > ANSWER_LIMIT_BYTES:
                raise self._failed(f"the answer of {PROGRAM} is too long", 1)
            else:
                answer.extend(output.data)

        async with execute(self.cluster, self.container, command) as execution:
            self._closes_stdin = execution.closes_stdin
            pieces = stdin.pieces if stdin is not None else None
            if pieces is not None and self._rate is not None:
                pieces = self._rate.limited(pieces)
            code = await run(execution, take, stdin=pieces, silence_seconds=self.silence_seconds)
        stderr.close()
        if code != 0:
            raise self._error(code, stderr)
        return bytes(answer)

    def _error(self, code: int, stderr: StderrReader) -> Exception:
        said = "; ".join(stderr.plain)
        if stderr.error is not None:
            return RemoteError(
                str(stderr.error["error"]),
                exit_code=code,
                kind=str(stderr.error.get("kind") or ""),
                temporary=bool(stderr.error.get("temporary")),
                detail=str(stderr.error.get("detail") or ""),
            )
        if code in _NOT_STARTED:
            return ExecNotStarted(self.container.pod, self.container.name, PROGRAM, said or f"exit code {code}")
        if code == _USAGE:
            return self._failed(
                "its registry-client is of another version; `kubectl spool doctor` compares them", code, said
            )
        return self._failed(f"{PROGRAM} ended with exit code {code}", code, said)

    def _failed(self, sentence: str, code: int, detail: str = "") -> RemoteError:
        said = f" ({detail})" if detail else ""
        return RemoteError(f"pod {self.container.pod}: {sentence}{said}", exit_code=code, detail=detail)


async def _once(content: bytes) -> AsyncGenerator[Buffer]:
    yield content


async def _told(pieces: AsyncGenerator[Buffer], on_sent: Callable[[int], None]) -> AsyncGenerator[Buffer]:
    async with aclosing(pieces):
        async for piece in pieces:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), STEP_BYTES):
                step = view[start : start + STEP_BYTES]
                yield step
                on_sent(len(step))
