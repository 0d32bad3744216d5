"""Whom we trust.

The certificate bundle is read again when it has changed on disk (Kubernetes swaps mounted secrets),
looked at no more than once a second and never on the event loop.
"""

from __future__ import annotations

import os
import ssl
import time
from pathlib import Path
from typing import Final

from registry_spooler.errors import SettingUnusable
from registry_spooler.threads import in_thread

LOOK_AGAIN_SECONDS: Final = 1.0


class CertificateUnreadable(SettingUnusable):
    """The file that `--certificate` names holds no certificates: whatever the registry would answer, nobody asks it."""

    def __str__(self) -> str:
        return f"the certificate {self.path!r} cannot be read: {self.reason}"


class TrustStore:
    """The TLS contexts of a client: a PEM bundle of CAs for its registry, or the system's CAs when there is none.

    Where the registry sends us (token servers, object storage) the bundle and the system's CAs are both trusted.
    """

    def __init__(self, certificate: Path | None) -> None:
        self._certificate = certificate
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._signature: tuple[int, ...] = ()
        self._looked = 0.0

    async def context(self, *, elsewhere: bool = False) -> ssl.SSLContext:
        """The context for the next connection; CertificateUnreadable when the bundle cannot be read."""
        elsewhere = elsewhere and self._certificate is not None
        known = self._contexts.get(elsewhere)
        now = time.monotonic()
        if known is not None and (self._certificate is None or now - self._looked < LOOK_AGAIN_SECONDS):
            return known
        context = await in_thread(self._load, elsewhere)
        self._looked = now
        return context

    async def trouble(self) -> CertificateUnreadable | None:
        """What is wrong with the bundle, for who asks before anything is sent."""
        try:
            if self._certificate is not None:
                await self.context()
        except CertificateUnreadable as exc:
            return exc
        return None

    def _load(self, elsewhere: bool) -> ssl.SSLContext:
        if self._certificate is None:
            return self._contexts.setdefault(False, ssl.create_default_context())
        try:
            status = self._certificate.stat()
            signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if signature != self._signature:
                fresh = _context_of(self._certificate, elsewhere)
                self._contexts = {elsewhere: fresh}
                self._signature = signature
            elif elsewhere not in self._contexts:
                self._contexts[elsewhere] = _context_of(self._certificate, elsewhere)
        except OSError as exc:
            # In the middle of a swap what was read before is still good.
            if elsewhere not in self._contexts:
                raise _unusable(self._certificate, exc) from exc
        return self._contexts[elsewhere]


def _context_of(certificate: Path, elsewhere: bool) -> ssl.SSLContext:
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
