"""Names to addresses, without those that a registry may not send us to.

The connection is made to the very addresses that were judged here, so a name that is looked up again cannot become
another one in between.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from registry_spooler.registry.address import Reach, reach_of
from registry_spooler.registry.origins import TargetRules


class PrivateTarget(OSError):
    """A name that the registry sends us to has private addresses alone."""

    def __init__(self, host: str) -> None:
        super().__init__(errno.EACCES, f"{host} has a private address")


class JudgedResolver(AbstractResolver):
    """The system's resolver, with the rules of one registry applied to each address."""

    def __init__(self, rules: TargetRules) -> None:
        self._rules = rules
        self._resolver = ThreadedResolver()
        self._registry_is_private = False
        """Were all addresses private that the registry's own name last had?"""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses that may be connected to; PrivateTarget when there are none but private ones."""
        results = await self._resolver.resolve(host, port, family)
        name = host.rstrip(".").lower()
        reaches = [reach_of(ip_address(result["host"].partition("%")[0])) for result in results]
        if name == self._rules.registry.host:
            self._registry_is_private = all(reach is Reach.PRIVATE for reach in reaches)
            return results
        allowed = [result for result in results if self._may_reach(name, result)]
        if not allowed:
            raise PrivateTarget(name) if results else OSError(f"{name} has no address")
        return allowed

    async def close(self) -> None:
        """Nothing is held open."""
        await self._resolver.close()

    def _may_reach(self, name: str, result: ResolveResult) -> bool:
        address = ip_address(result["host"].partition("%")[0])
        return self._rules.may_reach(name, address, registry_is_private=self._registry_is_private)
