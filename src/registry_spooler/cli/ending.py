"""How a program runs and ends: exit codes, and the signals that a shell expects a program to die of.

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
from registry_spooler.pull.output import InvalidPlatform, PlatformNotFound


class ExitCode(enum.IntEnum):
    """The codes of the contract."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4


class Interrupted(Exception):
    """A signal asked the program to end, and its work has been called off."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class NotHere(SpoolerError):
    """Something that was asked for is not there, and so exit code 3 says."""


_CODES: tuple[tuple[tuple[type[SpoolerError], ...], ExitCode], ...] = (
    ((NotFound, PlatformNotFound, NotHere), ExitCode.NOT_FOUND),
    ((AccessDenied, DeletesDisabled), ExitCode.NOT_ALLOWED),
    ((InvalidAddress, InvalidReference, InvalidFileName, InvalidPlatform), ExitCode.USAGE),
)


def exit_code(error: SpoolerError) -> ExitCode:
    """The code that tells a script what kind of error it was."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.FAILED)


def end_by(signum: int) -> NoReturn:
    """Die of a signal, as programs do that know nothing of it: a shell then shows 128 + signum and stops its loop.

    Threads that wait on a pipe end with the process.
    """
    _silence()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)  # process 1 of a container does not die of signals


def end_at_once(code: int) -> NoReturn:
    """End now, whatever threads still wait for."""
    _silence()
    os._exit(code)


def _silence() -> None:
    """Say what is still to be said on standard error, and nothing more."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()


T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run to the end; Interrupted when a signal came first."""
    return anyio.run(_interruptible, work)


async def _interruptible(work: Callable[[], Awaitable[T]]) -> T:
    caught: list[int] = []
    with anyio.CancelScope() as scope:

        def call_off(signum: int) -> None:
            if caught:
                end_by(signum)
            caught.append(signum)
            scope.cancel()

        for signum in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(signum, call_off, signum)
        return await work()
    raise Interrupted(caught[0])
