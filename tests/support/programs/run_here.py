"""A client program's `main`, run in the test's process: what a command does and prints, without a program's start.

A start takes half a second of a processor, and most tests are about something else. While a command runs here, the
descriptors 0, 1 and 2, the arguments, the environment and the working directory are its own; so one command runs at a
time. What a process is besides (its signals, its end, its memory, what it imports) wants a real one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

from registry_spooler.cli import printing, process
from registry_spooler.cli.registry_client.remote_end import RemoteSession

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: bytes
    stderr: bytes


def run_here(
    main: Callable[[], object],
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    stdin: bytes | IO[bytes] | None,
) -> Ended:
    """Run a program's `main` to its end, in any thread. No `stdin` is /dev/null."""
    with _ONE_AT_A_TIME, ExitStack() as stack:
        stdout, stderr = _Output(), _Output()
        stack.enter_context(_input(stdin))
        for descriptor, output in ((1, stdout), (2, stderr)):
            stack.enter_context(output.of(descriptor))
        stack.enter_context(_streams())
        stack.enter_context(_environment(environment))
        stack.enter_context(chdir(folder))
        stack.enter_context(patch.object(sys, "argv", list(command)))
        stack.enter_context(patch.object(printing, "program", printing.program))
        # Signals are the test's, and so are threads that end with the process.
        stack.enter_context(patch.object(process, "_interruptible", _uninterruptible))
        stack.enter_context(patch.object(RemoteSession, "attach", _wants_a_process))
        code = _exit_code(main)
    return Ended(code, stdout.content, stderr.content)


async def _uninterruptible(work: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await work()
    finally:  # the end of a process closes connections whose TLS has not yet said goodbye
        loop: Any = asyncio.get_running_loop()
        for transport in list(loop._transports.values()):
            transport.abort()
        await asyncio.sleep(0)


def _wants_a_process(_: RemoteSession) -> None:
    raise AssertionError("the remote end of a channel wants a process of its own")


def _exit_code(main: Callable[[], object]) -> int:
    try:
        main()
    except SystemExit as exc:
        assert exc.code is None or isinstance(exc.code, int), exc.code
        return exc.code or 0
    return 0


class _Output:
    """A pipe that is read as it fills."""

    def __init__(self) -> None:
        self.content = b""

    @contextmanager
    def of(self, descriptor: int) -> Iterator[None]:
        reading, writing = os.pipe()
        reader = threading.Thread(target=self._read, args=(reading,))
        reader.start()
        try:
            with _in_place_of(descriptor, writing):
                yield
        finally:
            reader.join()

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb") as pipe:
            self.content = pipe.read()


@contextmanager
def _input(stdin: bytes | IO[bytes] | None) -> Iterator[None]:
    if not isinstance(stdin, bytes):
        given = os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin.fileno())
        with _in_place_of(0, given):
            yield
        return
    reading, writing = os.pipe()
    writer = threading.Thread(target=_write, args=(writing, stdin))
    writer.start()
    try:
        with _in_place_of(0, reading):
            yield
    finally:
        writer.join()


def _write(descriptor: int, content: bytes) -> None:
    """Write until nobody reads any more."""
    try:
        with open(descriptor, "wb", buffering=0) as pipe:
            while content:
                content = content[pipe.write(content) :]
    except BrokenPipeError:
        pass


@contextmanager
def _in_place_of(descriptor: int, other: int) -> Iterator[None]:
    """Let a descriptor be another one, which is closed."""
    kept = os.dup(descriptor)
    os.dup2(other, descriptor)
    os.close(other)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@contextmanager
def _streams() -> Iterator[None]:
    """Let Python's standard streams be those of the descriptors."""
    with (
        open(0, closefd=False) as stdin,
        open(1, "w", closefd=False) as stdout,
        open(2, "w", closefd=False, errors="backslashreplace") as stderr,
        patch.multiple(sys, stdin=stdin, stdout=stdout, stderr=stderr),
    ):
        yield


@contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[None]:
    # A daemon in this process keeps its settings; what both have is there at any time, since other threads look.
    others = (name for name in list(os.environ) if not name.startswith("REGISTRY_SPOOLER_"))
    before = _changed({**dict.fromkeys(others), **environment})
    try:
        yield
    finally:
        _changed(before)


def _changed(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set variables, and remove those that are None; return what they were."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return before
