"""The pod that a client works with, and another one when that goes.

Pods are replaced: by an update, a drained node, a crash. What is asked of a pod that is no more is asked again of
the one that took its place, whatever its name; whoever asks starts over there, and finds out what has arrived.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from registry_spooler.kube.cluster import Cluster
from registry_spooler.kube.errors import NoPod, PodReplaced
from registry_spooler.kube.pods import Container, find_containers
from registry_spooler.kube.rate import RateLimit
from registry_spooler.kube.redial import Redial
from registry_spooler.kube.remote import Remote

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
    ) -> None:
        self.cluster = cluster
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
            self._remote = Remote(self.cluster, chosen, rate=self._rate, check=self._check)
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
