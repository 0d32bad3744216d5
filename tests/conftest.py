"""What all tests share: the real registry, and the guard against blocking calls on the event loop."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from blockbuster import BlockBuster, BlockBusterFunction

import registry_spooler
from support.images.real_archives import RealArchives, make_archives
from support.registries.running_registry import ForeignRegistry, RegistryOptions, RunningRegistry

FOREIGN_REGISTRY = "TEST_REGISTRY"
"""The environment variable with the URL of a registry to use in place of one of our own."""

MORE_BLOCKING_CALLS = (
    (os, "open"),
    (os, "lstat"),
    (os, "pread"),
    (os, "preadv"),
    (os, "pwrite"),
    (os, "fsync"),
    (os, "fdatasync"),
    (os, "ftruncate"),
    (os, "waitpid"),
    (socket, "getaddrinfo"),
)
"""What blockbuster does not watch by itself, and what a spool on a slow disk would make the loop wait for."""

ALLOWED_TO_BLOCK = {
    # asyncinotify opens and reads a descriptor that is non-blocking; `add_watch` is one system call on
    # a directory that the kernel has in memory.
    "asyncinotify/inotify.py": {"__init__", "_get", "get", "add_watch"},
    # Imports on first use read their modules once.
    "<frozen importlib._bootstrap>": {"_find_and_load"},
    "<frozen importlib._bootstrap_external>": {"get_data", "path_stat", "_path_stat"},
    # A library that reads the kubeconfig between its awaits has an event loop of its own, in a thread.
    "kubernetes/config.py": {"_load"},
    # Lines for people go to a terminal, or to the pipe that the container's runtime drains.
    "logging/__init__.py": {"emit", "flush"},
    # The client programs print in an event loop in which nothing else waits.
    "cli/printing.py": {"say_bytes", "warn"},
    # A remote caller's pipe is given no more than it has said to have room for; one byte wakes a thread.
    "cli/registry_client/remote_end.py": {"_move", "stop"},
    # Coverage looks at each file of the project when it first meets it.
    "coverage/control.py": {"_should_trace"},
    # A traceback's source lines, when something has gone wrong already.
    "linecache.py": {"checkcache", "updatecache"},
    "traceback.py": {"format_exception", "print_exception"},
}
"""Which functions may block on the event loop, by the end of their file's path, and why."""


TOGETHER = ("container", "health", "pictures")
"""Folders whose tests share something (a container image, a browser, a port), and so run in one process of several."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))


class MakeRegistry(Protocol):
    """The type of the fixture `make_registry`."""

    def __call__(
        self,
        *,
        deletes: bool = True,
        tls: bool = False,
        htpasswd: dict[str, str] | None = None,
        storage: Path | None = None,
        inmemory: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> RunningRegistry: ...


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry | ForeignRegistry]:
    """One registry for all tests, with deletes switched on. Tests keep apart by their `repository`."""
    if url := os.environ.get(FOREIGN_REGISTRY):
        yield ForeignRegistry(url)
        return
    running = RunningRegistry(tmp_path_factory.mktemp("registry"), RegistryOptions())
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def make_registry(tmp_path: Path) -> Iterator[MakeRegistry]:
    """Make registries of one's own: with TLS, logins, deletes off, or any other configuration."""
    made: list[RunningRegistry] = []

    def make(**options: Any) -> RunningRegistry:
        given = {name: value for name, value in options.items() if value is not None}
        running = RunningRegistry(tmp_path / f"registry-{len(made)}", RegistryOptions(**given))
        made.append(running)
        running.start()
        return running

    try:
        yield make
    finally:
        for running in made:
            running.stop()


@pytest.fixture(scope="session")
def real_archives(tmp_path_factory: pytest.TempPathFactory) -> RealArchives:
    """The archives of podman, buildah, skopeo and umoci; made once."""
    return make_archives(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository name that no other test uses, with the test's own name in it."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.originalname.lower()).strip("-")
    return f"tests/{name[:60].strip('-')}/{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs read REGISTRY_SPOOLER_… variables; a developer's own must not reach the tests."""
    for name in list(os.environ):
        if name.startswith(("REGISTRY_SPOOLER_", "REGISTRY_CLIENT_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def blocking_calls(request: pytest.FixtureRequest) -> Iterator[BlockBuster | None]:
    """Fail every call from the project that blocks the event loop, in asynchronous tests.

    The tests' own code may block: it is the world around the project.
    """
    if not pytest_asyncio.is_async_test(request.node):
        yield None
        return
    guard = BlockBuster(scanned_modules=registry_spooler)
    _extend(guard)
    guard.activate()
    try:
        yield guard
    finally:
        guard.deactivate()


def _extend(guard: BlockBuster) -> None:
    for module, name in MORE_BLOCKING_CALLS:
        guard.functions[f"{module.__name__}.{name}"] = _watched(module, name)
    guard.functions["fcntl.flock"] = _watched(
        fcntl, "flock", lambda _, operation: bool(operation & (fcntl.LOCK_NB | fcntl.LOCK_UN))
    )
    for function in guard.functions.values():
        for filename, names in ALLOWED_TO_BLOCK.items():
            function.can_block_in(filename, names)


def _watched(module: Any, name: str, allowed: Callable[..., bool] = lambda *_, **__: False) -> BlockBusterFunction:
    return BlockBusterFunction(module, name, scanned_modules=registry_spooler, can_block_predicate=allowed)
