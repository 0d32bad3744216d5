"""How the two client programs run and end: exit codes, and the signals that a shell expects a program to die of.

The first signal cancels the work: open uploads are given up at the registry, half-written files go. A second one ends
the program at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

import anyio

from registry_spooler.errors import (
    AccessDenied,
    DeletesDisabled,
    InvalidAddress,
    InvalidFileName,
    InvalidReference,
    NotFound,
    SpoolerError,
)
from registry_spooler.kubernetes.cluster_errors import (
    KubeForbidden,
    KubeLoginRejected,
    KubeNotFound,
    NoContainer,
    NoPod,
    NoWorkload,
    RemoteError,
)
from registry_spooler.pull.output import InvalidPlatform, PlatformNotFound


class ExitCode(enum.IntEnum):
    """The codes of the contract."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4


class Interrupted(Exception):
    """A signal asked the program to end, and its work has been cancelled."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class NotHere(SpoolerError):
    """Something that was asked for is not there: exit code 3."""


_CODES: Final[tuple[tuple[tuple[type[SpoolerError], ...], ExitCode], ...]] = (
    ((NotFound, PlatformNotFound, NotHere, KubeNotFound, NoPod, NoContainer, NoWorkload), ExitCode.NOT_FOUND),
    ((AccessDenied, DeletesDisabled, KubeForbidden, KubeLoginRejected), ExitCode.NOT_ALLOWED),
    ((InvalidAddress, InvalidReference, InvalidFileName, InvalidPlatform), ExitCode.USAGE),
)


def exit_code(error: SpoolerError) -> ExitCode:
    """Return the code that tells a script what kind of error it was; a pod's error brings its own."""
    if isinstance(error, RemoteError):
        return ExitCode(error.exit_code) if error.exit_code in _OF_THE_POD else ExitCode.FAILED
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.FAILED)


_OF_THE_POD: Final = frozenset({ExitCode.USAGE, ExitCode.NOT_FOUND, ExitCode.NOT_ALLOWED})


def end_by(signum: int) -> NoReturn:
    """Die of a signal, as programs do that do not handle it: a shell then shows 128 + signum and stops its loop.

    Threads that wait on a pipe end with the process.
    """
    _flush_stderr()
    if sys.platform == "win32":
        os._exit(ExitCode.FAILED)
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)  # process 1 of a container does not die of signals


def end_of_pipe() -> NoReturn:
    """End as a program whose reader has gone."""
    end_by(getattr(signal, "SIGPIPE", signal.SIGTERM))


def end_at_once(code: int) -> NoReturn:
    """End now, whatever threads still wait for."""
    _flush_stderr()
    os._exit(code)


def _flush_stderr() -> None:
    with contextlib.suppress(OSError):
        sys.stderr.flush()


T = TypeVar("T")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run asynchronous work to its end; Interrupted when a signal came first."""
    if sys.platform == "win32":
        return anyio.run(work)  # its event loop takes no handlers; Ctrl-C raises KeyboardInterrupt
    return anyio.run(_interruptible, work)


async def _interruptible(work: Callable[[], Awaitable[T]]) -> T:
    caught: list[int] = []
    with anyio.CancelScope() as scope:

        def cancel(signum: int) -> None:
            if caught:
                end_by(signum)
            caught.append(signum)
            scope.cancel()

        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, cancel, signum)
        return await work()
    raise Interrupted(caught[0])
