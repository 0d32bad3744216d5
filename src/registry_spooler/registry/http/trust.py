"""Whom a client trusts: certificates, and where a registry may send it.

The certificate bundle is read again when it has changed on disk, never on the event loop.

Credentials never leave the origin they are for; that is the HTTP client's doing. Here it is decided whether
a target may be asked at all: by its spelling, before anything is asked, and by its addresses when they have been
looked up (`resolver`), so that a name is no way around. The published leaks that these rules stand against:
CVE-2020-15157 (containerd), GHSA-jxpm-75mh-9fp7, GHSA-vh4v-2xq2-g5cg and GHSA-xf85-363p-868w (oras-go).

The connection is made to the very addresses that were judged here, so a name that is looked up again cannot become
another one in between.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.parse import urljoin

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from registry_spooler.aio import in_thread
from registry_spooler.errors import RegistryProtocolError, SettingUnusable
from registry_spooler.registry.address import Address, Origin, Reach, is_loopback, literal_address, reach_of, redact
from registry_spooler.registry.http.known_secrets import KnownSecrets

REREAD_SECONDS: Final = 1.0
T = TypeVar("T")


class WatchedFile(Generic[T]):
    """A file that may be replaced at any time (Kubernetes swaps mounted secrets), read again when it has changed."""

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self._path = path
        self._read = read
        self._signature: tuple[int, ...] = ()
        self._content: T | None = None
        self._read_at = 0.0

    async def content(self, *, fresh: bool = False) -> T:
        """Return what is in it, not older than REREAD_SECONDS; OSError when it could never be read."""
        now = time.monotonic()
        if self._content is not None and not fresh and now - self._read_at < REREAD_SECONDS:
            return self._content
        content = await in_thread(self._reread)
        self._read_at = now
        return content

    def _reread(self) -> T:
        try:
            status = self._path.stat()
            signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if self._content is None or signature != self._signature:
                self._content = self._read(self._path)
                self._signature = signature
        except OSError:
            # In the middle of a swap what was read before is still good.
            if self._content is None:
                raise
        return self._content


class CertificateUnreadable(SettingUnusable):
    """The file that `--certificate` names holds no certificates: whatever the registry would answer, nobody asks it."""

    sentence = "the certificate {path!q} cannot be read: {reason}"


class TrustStore:
    """The TLS contexts of a client: a PEM bundle of CAs for its registry, or the system's CAs when there is none.

    Where the registry sends us (token servers, object storage) the bundle and the system's CAs are both trusted.
    """

    def __init__(self, certificate: Path | None) -> None:
        self._certificate = certificate
        self._default: ssl.SSLContext | None = None
        self._bundles = [
            WatchedFile(certificate, partial(_context_of, elsewhere=elsewhere))
            for elsewhere in (False, True)
            if certificate is not None
        ]

    async def context(self, *, elsewhere: bool = False) -> ssl.SSLContext:
        """Return the context for the next connection; CertificateUnreadable when the bundle cannot be read."""
        if self._certificate is None:
            if self._default is None:
                self._default = await in_thread(ssl.create_default_context)
            return self._default
        try:
            return await self._bundles[elsewhere].content()
        except OSError as exc:
            raise _unusable(self._certificate, exc) from exc

    async def trouble(self) -> CertificateUnreadable | None:
        """Return what is wrong with the bundle, before anything is sent."""
        try:
            if self._certificate is not None:
                await self.context()
        except CertificateUnreadable as exc:
            return exc
        return None


def _context_of(certificate: Path, *, elsewhere: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.fspath(certificate))
    if elsewhere:
        context.load_default_certs()
    # Private CAs are often made by hand: an issuer need not be a root, and extensions that newer Pythons ask for
    # may be missing.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _unusable(certificate: Path, exc: OSError) -> CertificateUnreadable:
    is_none = isinstance(exc, ssl.SSLError)
    reason = "it is no bundle of certificates in PEM format" if is_none else exc.strerror or type(exc).__name__
    return CertificateUnreadable(str(certificate), reason)


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
        """Whether all addresses were private when the registry's own name was last looked up."""

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
