"""`registry-client` in one pod, called from here; and another pod when that one goes.

Each call is one exec. Standard output is the answer; standard error is JSON, and ends with the error, which is raised
here as a RemoteError, or with the last word (see `lastword`), without which the call was cut. Standard input stays
open, so that the program sees its caller go; where it ends, its length tells.

After a cut the pod is looked for before it is called again: it may have been replaced by one of another name.

Pods are replaced: by an update, a drained node, a crash. What is asked of a pod that is no more is asked again of
the one that took its place, whatever its name; whoever asks starts over there, and finds out what has arrived.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import orjson

from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import (
    ExecCut,
    ExecNotStarted,
    KubeError,
    KubeNotFound,
    NoPod,
    PodReplaced,
    RemoteError,
)
from registry_spooler.kubernetes.exec import SILENCE_SECONDS, execute, run
from registry_spooler.kubernetes.frames import Channel, ChannelOutput
from registry_spooler.kubernetes.pods import Container, find_containers
from registry_spooler.kubernetes.redial import RateLimit, Redial, in_steps
from registry_spooler.kubernetes.wire import PROGRAM, Document, SpoolerStopping, StderrReader, UnreadableAnswer, command

if TYPE_CHECKING:
    from typing_extensions import Buffer


ANSWER_LIMIT_BYTES: Final = 64 << 20
"""A catalogue of a million tags is less."""
_USAGE: Final = 2
_NOT_STARTED: Final = frozenset({126, 127})
"""What a shell, and some runtimes, give for a program that cannot be run."""
_KILLED: Final = 128
"""An exit code from here on is a signal's."""

OnStdout = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Input:
    """What a command reads: `pieces` gives exactly `size` bytes."""

    size: int
    pieces: AsyncGenerator[Buffer]

    @classmethod
    def of(cls, content: bytes) -> Input:
        """Bytes that are at hand."""
        return cls(len(content), _once(content))


class Remote:
    """`registry-client` in one container.

    `check`, asked after a cut, raises PodReplaced when the pod is no more. `on_waiting` is told how many others come
    first, when a command has to wait for its turn.
    """

    def __init__(
        self,
        cluster: Cluster,
        container: Container,
        *,
        rate: RateLimit | None = None,
        silence_seconds: float = SILENCE_SECONDS,
        check: Callable[[Container], Awaitable[None]] | None = None,
        on_waiting: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.cluster = cluster
        self.container = container
        self.on_waiting = on_waiting
        self._rate = rate
        self.silence_seconds = silence_seconds
        self._check = check
        self._was_cut = False

    async def version(self) -> str:
        """The version of the program in the pod, which may be one that says no last word."""
        call = Call(self)
        async with execute(self.cluster, self.container, [PROGRAM, "--version"]) as execution:
            code = await run(execution, call.take, silence_seconds=self.silence_seconds)
        if code != 0:
            raise call.error(code or 0)
        return call.answer.decode("utf-8", "replace").strip().rpartition(" ")[2]

    async def call(
        self,
        *arguments: str,
        stdin: Input | None = None,
        on_stdout: OnStdout | None = None,
        on_sent: Callable[[int], None] | None = None,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> bytes:
        """Run one command and return what it wrote, which is nothing where `on_stdout` took it.

        `on_sent` is told the size of each piece of input that the connection has taken, `on_warning` what was odd about
        a command that went well.
        RemoteError when the command failed; other KubeErrors when it could not be run to its end.
        """
        line = command(*arguments, stdin_bytes=stdin.size if stdin is not None else 0)
        call = Call(self, on_stdout)
        await self.attempt(lambda: self._run(line, self.pieces(stdin, on_sent), call))
        for warning in call.warnings:
            on_warning(warning)
        return bytes(call.answer)

    async def attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do what needs the pod; after a cut see first that it is still there."""
        if self._was_cut and self._check is not None:
            await self._check(self.container)
        try:
            await work()
        except KubeNotFound as exc:
            if self._check is None:
                raise
            self._was_cut = True
            await self._check(self.container)
            # The pod is there: a kubelet that has just started does not know it yet.
            raise ExecCut(self.container.pod, exc.message or "it was not found") from exc
        except KubeError as exc:
            self._was_cut = exc.temporary
            raise
        self._was_cut = False

    async def call_json(
        self, *arguments: str, stdin: Input | None = None, on_sent: Callable[[int], None] | None = None
    ) -> Document:
        """Run one command whose answer is JSON."""
        return parse_answer(arguments[0], await self.call(*arguments, stdin=stdin, on_sent=on_sent))

    async def _run(self, line: list[str], stdin: AsyncGenerator[Buffer] | None, call: Call) -> None:
        async with execute(self.cluster, self.container, line) as execution:
            code = await run(
                execution,
                call.take,
                stdin=stdin,
                closes_stdin=False,
                silence_seconds=self.silence_seconds,
                is_over=call.is_over,
            )
        call.conclude(code)

    def pieces(self, stdin: Input | None, on_sent: Callable[[int], None] | None) -> AsyncGenerator[Buffer] | None:
        """Return the input as it may be sent: not too fast, and counted."""
        if stdin is None:
            return None
        pieces = _told(stdin.pieces, on_sent) if on_sent is not None else stdin.pieces
        return self._rate.limited(pieces) if self._rate is not None else pieces


def parse_answer(command: str, answer: bytes) -> Document:
    """Return a command's answer; UnreadableAnswer when it is not JSON."""
    try:
        return Document(orjson.loads(answer), command)
    except orjson.JSONDecodeError as exc:
        raise UnreadableAnswer(command, "JSON") from exc


class Call:
    """What one command says, and what that comes to."""

    def __init__(self, remote: Remote, on_stdout: OnStdout | None = None) -> None:
        self._container = remote.container
        self._on_waiting = remote.on_waiting
        self._on_stdout = on_stdout
        self._stderr = StderrReader()
        self._stdout_bytes = 0
        self.answer = bytearray()

    async def take(self, output: ChannelOutput) -> None:
        """Take the next output."""
        if output.channel is Channel.STDERR:
            ahead = self._stderr.ahead
            self._stderr.feed(output.data)
            if self._stderr.ahead != ahead:
                self._on_waiting(self._stderr.ahead)
            return
        self._stdout_bytes += len(output.data)
        if self._on_stdout is not None:
            await self._on_stdout(output.data)
        elif self._stdout_bytes > ANSWER_LIMIT_BYTES:
            raise self._failed(f"the answer of {PROGRAM} is too long", 1)
        else:
            self.answer.extend(output.data)

    @property
    def warnings(self) -> Sequence[str]:
        """What was odd, but no error."""
        return self._stderr.warnings

    def is_over(self) -> bool:
        """Has it said all that it had to say?"""
        return self._stderr.is_over(self._stdout_bytes)

    def has_last_word(self) -> bool:
        """Return whether nothing of it can come any more."""
        return self._stderr.last_word is not None and self.is_over()

    def conclude(self, code: int | None) -> None:
        """Return when all went well, whatever the cluster thinks of it; raise what did not."""
        self._stderr.close()
        last = self._stderr.last_word
        if self._stderr.error is not None or last is None:
            raise self.error(code or 0)
        if last.stdout_bytes != self._stdout_bytes:
            raise ExecCut(
                self._container.pod, f"{self._stdout_bytes:,} of {last.stdout_bytes:,} bytes of the answer came"
            )
        if last.code != 0:
            raise self._failed(f"{PROGRAM} ended with exit code {last.code}", last.code, "; ".join(self._stderr.plain))

    def error(self, code: int) -> KubeError:
        """What it means that a command ended so."""
        self._stderr.close()
        complaint, said = self._stderr.error, "; ".join(self._stderr.plain)
        if complaint is not None and complaint.kind == SpoolerStopping.__name__:
            return ExecCut(self._container.pod, complaint.sentence)
        if complaint is not None:
            return RemoteError(
                complaint.sentence,
                exit_code=complaint.code,
                kind=complaint.kind,
                temporary=complaint.temporary,
                detail=complaint.detail,
            )
        if code in _NOT_STARTED:
            return ExecNotStarted(self._container.pod, self._container.name, PROGRAM, said or f"exit code {code}")
        if code == _USAGE:
            return self._failed(
                "its registry-client is of another version; `kubectl spool doctor` compares them", code, said
            )
        if code >= _KILLED:
            return ExecCut(self._container.pod, f"{PROGRAM} was killed there (exit code {code})")
        if code == 0 or not said:
            return ExecCut(self._container.pod, f"{PROGRAM} did not say that it was through")
        return self._failed(f"{PROGRAM} ended with exit code {code}", code, said)

    def _failed(self, sentence: str, code: int, detail: str = "") -> RemoteError:
        said = f" ({detail})" if detail else ""
        return RemoteError(f"pod {self._container.pod}: {sentence}{said}", exit_code=code, detail=detail)


async def _once(content: bytes) -> AsyncGenerator[Buffer]:
    yield content


async def _told(pieces: AsyncGenerator[Buffer], on_sent: Callable[[int], None]) -> AsyncGenerator[Buffer]:
    async with aclosing(pieces):
        async for piece in pieces:
            for step in in_steps(piece):
                yield step
                on_sent(len(step))


T = TypeVar("T")

REPLACEMENTS_MAX: Final = 5
"""In the course of one piece of work."""


class PodSession:
    """One of the pods that a selector finds; `pod` wants a certain one. The constructor asks nothing."""

    def __init__(
        self,
        cluster: Cluster,
        selector: str,
        container: str,
        *,
        pod: str | None = None,
        rate: RateLimit | None = None,
        redial: Redial | None = None,
        on_waiting: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.cluster = cluster
        self._on_waiting = on_waiting
        self.redial = redial or Redial()
        self._selector = selector
        self._container = container
        self._pod = pod
        self._rate = rate
        self._remote: Remote | None = None
        self._had_pod = False

    async def containers(self) -> tuple[Container, ...]:
        """All that the selector finds, in the order of the pods' names."""
        return await find_containers(self.cluster, self._selector, self._container)

    async def remote(self) -> Remote:
        """`registry-client` in the pod that is worked with: chosen once, until `use` finds it gone."""
        if self._remote is None:
            chosen = await self.redial.run(self._choose, heals=False)
            self._remote = Remote(self.cluster, chosen, rate=self._rate, check=self._check, on_waiting=self._on_waiting)
            self._had_pod = True
        return self._remote

    async def use(self, work: Callable[[Remote], Awaitable[T]]) -> T:
        """Do `work` with the pod, and from its beginning with another when that one is no more."""
        for _ in range(REPLACEMENTS_MAX):
            remote = await self.remote()
            try:
                return await work(remote)
            except PodReplaced:
                if self._remote is remote:
                    self._remote = None
        return await work(await self.remote())

    async def ask(self, work: Callable[[Remote], Awaitable[T]]) -> T:
        """As `use`, and again after a cut: for what can be asked twice."""
        return await self.use(lambda remote: self.redial.run(lambda: work(remote)))

    async def _choose(self) -> Container:
        try:
            return self._wanted(await self.containers())
        except NoPod as exc:
            exc.temporary = exc.temporary or self._had_pod  # the next one is on its way
            raise

    def _wanted(self, found: tuple[Container, ...]) -> Container:
        for container in found:
            if self._pod in (None, container.pod):
                return container
        raise NoPod(self._selector, self.cluster.namespace, pod=self._pod)

    async def _check(self, container: Container) -> None:
        """See that the pod is still the one that it was; PodReplaced when it is gone or going."""
        try:
            found = await self.containers()
        except NoPod as exc:
            raise PodReplaced(container.pod) from exc
        if container not in found:
            raise PodReplaced(container.pod)
