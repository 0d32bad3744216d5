"""Where requests may go when a registry sends them elsewhere: redirects, uploads, token servers, pages.

Credentials never leave the origin they are for; that is the exchange's doing. Here it is decided whether
a target may be asked at all. The published leaks that these rules stand against: CVE-2020-15157
(containerd), GHSA-jxpm-75mh-9fp7, GHSA-vh4v-2xq2-g5cg and GHSA-xf85-363p-868w (oras-go).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urljoin

from registry_spooler.errors import RegistryProtocolError
from registry_spooler.registry.address import Origin, is_loopback, literal_address, redact


@dataclass(frozen=True, slots=True)
class TargetRules:
    """The rules of one registry. `allow_private` is for those inside a cluster that point to private addresses."""

    registry: Origin
    allow_private: bool = False

    def redirect(self, url: str, location: str) -> str:
        """Where a redirect leads."""
        return self._resolve(url, location, "a redirect")

    def upload(self, url: str, location: str) -> str:
        """Where an upload goes on; another origin is fine, and gets no credentials."""
        return self._resolve(url, location, "an upload's Location")

    def realm(self, url: str, realm: str) -> str:
        """The token server that a challenge names; the password may go there."""
        return self._resolve(url, realm, "the token server")

    def page(self, url: str, link: str) -> str:
        """The next page of a list: on the same origin only."""
        target = self._resolve(url, link, "the next page")
        if Origin.of(target) != Origin.of(url):
            raise self._refused("the next page", target, "on another host")
        return target

    def _resolve(self, url: str, reference: str, what: str) -> str:
        try:
            target = join(url, reference)
            origin = Origin.of(target)
        except ValueError as exc:
            raise RegistryProtocolError(str(self.registry), f"{what} is no usable URL: {redact(reference)}") from exc
        if self.registry.scheme == "https" and origin.scheme != "https":
            raise self._refused(
                what,
                target,
                "plain http, though the registry is reached by https; a proxy in front "
                "of it has to pass X-Forwarded-Proto on",
            )
        if origin.host != self.registry.host and not self._may_reach(origin.host):
            raise self._refused(what, target, "a private address")
        return target

    def _may_reach(self, host: str) -> bool:
        """A registry on this machine may point anywhere; one on a private address to others of its kind."""
        if self.allow_private or is_loopback(self.registry.host):
            return True
        if is_loopback(host):
            return False
        address = literal_address(host)
        if address is None or address.is_global:
            return True
        own = literal_address(self.registry.host)
        return bool(
            address.is_private and not address.is_link_local and not address.is_unspecified and own and own.is_private
        )

    def _refused(self, what: str, target: str, why: str) -> RegistryProtocolError:
        return RegistryProtocolError(
            str(self.registry), f"{what} leads to {redact(target)}, which is refused: it is {why}"
        )


def join(url: str, reference: str) -> str:
    """Resolve a reference without touching the characters of its path and query."""
    if reference.startswith(("https://", "http://")):
        return reference
    return urljoin(url, reference)
