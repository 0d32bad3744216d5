"""Commands that talk to a registry: their options, their client, and how they were called."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from registry_spooler.cli.printing import warn
from registry_spooler.cli.process import run
from registry_spooler.cli.registry_client.remote_end import RemoteSession, SharedRegistry
from registry_spooler.cli.registry_options import RegistrySettings, option, registry_options
from registry_spooler.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from registry_spooler.archive.source import Source
    from registry_spooler.push.delta_bases import SignatureStore
    from registry_spooler.push.layer_cache import KnownBlobs
    from registry_spooler.registry.registry_client import RegistryClient


_STDIN: Final = 0

_T = TypeVar("_T")
_P = ParamSpec("_P")


@dataclass(frozen=True, slots=True)
class Context:
    """How a command was called. `remote` is the session with a caller beyond the API server, or None."""

    remote: RemoteSession | None = None

    def run(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run asynchronous work to its end; Interrupted when a signal came first, or its caller has gone."""
        return run(work) if self.remote is None else self.remote.run(work)

    @contextmanager
    def reading(self) -> Generator[Callable[[int], bytes]]:
        """Read standard input, in a thread, with what this yields: at most so many bytes, none at the end."""
        if self.remote is None:
            yield lambda count: os.read(_STDIN, count)
            return
        with self.remote.reading() as read:
            yield read

    def standard_input(self, name: str) -> Source:
        """Return standard input as the source of an archive."""
        from registry_spooler.archive.source import source_of

        return source_of(_STDIN, name) if self.remote is None else self.remote.input

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


C = TypeVar("C", bound=Callable[..., Any])
T = TypeVar("T")
P = ParamSpec("P")


def earlier_options(command: C) -> C:
    """Take `-v`, `-l FILE` and `-z VALUE`, which earlier programs of this name had, and say that they do nothing."""

    def say_so(context: click.Context, parameter: click.Parameter, value: object) -> None:
        if value and not context.resilient_parsing:
            warn(f"{parameter.opts[-1]} does nothing here: there is no log to write, and no colour in the output")

    for *names, is_counted in (("-v", "--verbose", True), ("-l", "--log", False), ("-z", "--colorize", False)):
        option = click.option(*map(str, names), count=is_counted, hidden=True, expose_value=False, callback=say_so)
        command = option(command)
    return command


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
            async with self._client() as client:
                try:
                    return await work(client)
                except NotFound as exc:
                    exc.hint = exc.hint or "`list --tags` tells what there is"
                    raise

        return self.run(connected_work)

    @property
    def known(self) -> KnownBlobs | None:
        """What the daemon knows of the registry's blobs, if the command runs in there."""
        shared = self._shared
        return shared.known if shared is not None else None

    def signatures(self, directory: Path) -> SignatureStore:
        """Return the signatures that are kept in a spool directory: the daemon's own, if the command runs in there."""
        from registry_spooler.push.delta_bases import SIGNATURES, SignatureStore

        shared = self._shared
        return shared.signatures if shared is not None else SignatureStore(directory / SIGNATURES)

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[RegistryClient]:
        if (shared := self._shared) is not None:
            yield shared.client
            return
        async with self.settings.client(pushes=self.pushes) as client:
            yield client

    @property
    def _shared(self) -> SharedRegistry | None:
        shared = self.remote.shared if self.remote is not None else None
        return shared if shared is not None and shared.settings == self.settings else None


def connected(*, pushes: bool = False) -> Callable[[Callable[Concatenate[Connection, P], T]], Callable[..., T]]:
    """Give a command a registry, and the options that say which. `pushes`: it writes there."""

    def decorate(command: Callable[Concatenate[Connection, P], T]) -> Callable[..., T]:
        @registry_options(*PREFIXES)
        @earlier_options
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
