"""Who called the program, and so how its work is run: by a person or script, or from beyond the API server."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import click

from registry_spooler.command.printing import warn
from registry_spooler.command.remote import FarEnd
from registry_spooler.command.running import run

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Caller:
    """How to run work, and where to say how it goes. `far_end` is None for a person or a script."""

    far_end: FarEnd | None = None

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run asynchronous work to its end; Interrupted when a signal came first."""
        return run(work)

    def warn(self, sentence: str) -> None:
        """Say what is odd, but no error."""
        if self.far_end is not None:
            self.far_end.say({"warning": sentence})
        else:
            warn(sentence)


def called(command: Callable[Concatenate[Caller, P], T]) -> Callable[P, T]:
    """Give a command its caller."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return command(click.get_current_context().find_object(Caller) or Caller(), *args, **kwargs)

    return wrapper
