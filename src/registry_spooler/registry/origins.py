"""Where requests may go when a registry sends them elsewhere: redirects, uploads, token servers, pages.

Credentials never leave the origin they are for; that is the exchange's doing. Here it is decided whether
a target may be asked at all: by its spelling, before anything is asked, and by its addresses when they have been
looked up (`resolver`), so that a name is no way around. The published leaks that these rules stand against:
CVE-2020-15157 (containerd), GHSA-jxpm-75mh-9fp7, GHSA-vh4v-2xq2-g5cg and GHSA-xf85-363p-868w (oras-go).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urljoin

from registry_spooler.errors import RegistryProtocolError
from registry_spooler.registry.address import Address, Origin, Reach, is_loopback, literal_address, reach_of, redact
from registry_spooler.registry.known_secrets import KnownSecrets


@dataclass(frozen=True, slots=True)
class TargetRules:
    """The rules of one registry. `allow_private` is for those inside a cluster that point to private addresses."""

    registry: Origin
    allow_private: bool = False
    secrets: KnownSecrets = field(default_factory=KnownSecrets, compare=False)
    """What is never shown, whoever says it."""

    def show(self, url: str) -> str:
        """The URL for people: redacted, and without any secret that the registry may have put into it."""
        return self.secrets.hide(redact(self.secrets.hide(url)))

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
        except ValueError:
            shown = self.show(reference)[:200]
            raise RegistryProtocolError(str(self.registry), f"{what} is no usable URL: {shown}") from None
        if self.registry.scheme == "https" and origin.scheme != "https":
            raise self._refused(
                what,
                target,
                "plain http, though the registry is reached by https; a proxy in front "
                "of it has to pass X-Forwarded-Proto on",
            )
        address = literal_address(origin.host)
        if not self.may_reach(origin.host, address, registry_is_private=self._is_private):
            raise self._refused(what, target, "a private address")
        return target

    def may_reach(self, host: str, address: Address | None, *, registry_is_private: bool) -> bool:
        """Return whether a host may be asked, as far as is known from its name or from one of its addresses.

        A registry on this machine may point anywhere; one on a private network to others there.
        """
        if self.allow_private or host == self.registry.host or is_loopback(self.registry.host):
            return True
        if address is None:
            return not is_loopback(host)
        reach = reach_of(address)
        return reach is Reach.PUBLIC or (reach is Reach.PRIVATE and registry_is_private)

    @property
    def _is_private(self) -> bool:
        address = literal_address(self.registry.host)
        return address is not None and reach_of(address) is Reach.PRIVATE

    def _refused(self, what: str, target: str, why: str) -> RegistryProtocolError:
        return RegistryProtocolError(
            str(self.registry), f"{what} leads to {self.show(target)}, which is refused: it is {why}"
        )


def join(url: str, reference: str) -> str:
    """Resolve a reference without touching the characters of its path and query."""
    if reference.startswith(("https://", "http://")):
        return reference
    return urljoin(url, reference)
