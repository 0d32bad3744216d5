"""Commands that talk to a registry: their options, their client, and how they were called."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from registry_spooler.cli.printing import warn
from registry_spooler.cli.process import run
from registry_spooler.cli.registry_client.remote_end import RemoteSession
from registry_spooler.errors import NotFound
from registry_spooler.options import RegistrySettings, option, registry_options

if TYPE_CHECKING:
    from registry_spooler.registry.registry_client import RegistryClient


_T = TypeVar("_T")
_P = ParamSpec("_P")


@dataclass(frozen=True, slots=True)
class Context:
    """How a command was called. `remote` is the session with a caller beyond the API server, or None."""

    remote: RemoteSession | None = None

    def run(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run asynchronous work to its end; Interrupted when a signal came first."""
        return run(work)

    def warn(self, sentence: str) -> None:
        """Warn of what is odd, but no error."""
        if self.remote is not None:
            self.remote.say({"warning": sentence})
        else:
            warn(sentence)


def with_context(command: Callable[Concatenate[Context, _P], _T]) -> Callable[_P, _T]:
    """Give a command its context."""

    @functools.wraps(command)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return command(click.get_current_context().find_object(Context) or Context(), *args, **kwargs)

    return wrapper


T = TypeVar("T")
P = ParamSpec("P")

PREFIXES: Final = ("REGISTRY_CLIENT", "REGISTRY_SPOOLER")
"""In a pod the spooler's own settings do for both programs."""

setting = functools.partial(option, PREFIXES)
"""An option that may be an environment variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(Context):
    """The context, and the registry that the command is about."""

    settings: RegistrySettings
    pushes: bool = False

    def with_client(self, work: Callable[[RegistryClient], Awaitable[T]]) -> T:
        """Run asynchronous work with an open client."""

        async def connected_work() -> T:
            async with self.settings.client(pushes=self.pushes) as client:
                try:
                    return await work(client)
                except NotFound as exc:
                    exc.hint = exc.hint or "`list --tags` tells what there is"
                    raise

        return self.run(connected_work)


def connected(*, pushes: bool = False) -> Callable[[Callable[Concatenate[Connection, P], T]], Callable[..., T]]:
    """Give a command a registry, and the options that say which. `pushes`: it writes there."""

    def decorate(command: Callable[Concatenate[Connection, P], T]) -> Callable[..., T]:
        @registry_options(*PREFIXES)
        @functools.wraps(command)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            context = click.get_current_context()
            remote = (context.find_object(Context) or Context()).remote
            settings = RegistrySettings.take({**kwargs, **_given_before(context)})
            for name in RegistrySettings.__dataclass_fields__:
                kwargs.pop(name, None)
            return command(
                Connection(remote=remote, settings=settings, pushes=pushes),
                *args,
                **kwargs,
            )

        return wrapper

    return decorate


def _given_before(context: click.Context) -> dict[str, Any]:
    """The registry's options on the command line before the command's name; those behind it win."""
    program = context.find_root()
    return {
        name: value
        for name, value in program.params.items()
        if name in RegistrySettings.__dataclass_fields__
        and program.get_parameter_source(name) is ParameterSource.COMMANDLINE
        and context.get_parameter_source(name) is not ParameterSource.COMMANDLINE
    }
