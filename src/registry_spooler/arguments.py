"""The process's own arguments, as every user of the machine sees them in the process list.

A password on the command line stands there for as long as the process lives. Linux lets a process write over its
arguments in its memory; where that is not possible, the password stays to be seen, as it does with any program.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

_MASK: Final = b"*"
_ARG_START: Final = 48
"""The field of /proc/self/stat, counted from 1: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""


def hide_arguments(secrets: Iterable[str]) -> None:
    """Write asterisks over arguments that are one of the secrets, or end in one (`--password=…`, `-p…`)."""
    wanted = [secret.encode(errors="surrogateescape") for secret in secrets]
    if not wanted:
        return
    try:
        arguments = Path("/proc/self/cmdline").read_bytes()
        masked = mask(arguments, wanted)
        if masked != arguments:
            with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
                memory.seek(_arguments_address())
                memory.write(masked)
    except (OSError, ValueError, IndexError):
        return


def mask(arguments: bytes, secrets: Iterable[bytes]) -> bytes:
    """The arguments (each ends in a zero byte) with the secrets in them masked, of the same length."""
    masked = arguments.split(b"\0")
    for index, argument in enumerate(masked):
        for secret in secrets:
            if argument == secret or (argument.startswith(b"-") and argument.endswith(secret)):
                masked[index] = argument[: len(argument) - len(secret)] + _MASK * len(secret)
    return b"\0".join(masked)


def _arguments_address() -> int:
    # The program's name is in parentheses and may hold anything, so the fields are counted from its end.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[_ARG_START - 3])
