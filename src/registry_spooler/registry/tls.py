"""Whom we trust, and why a connection could not be made, in words.

The certificate bundle is read again when it has changed on disk (Kubernetes swaps mounted secrets),
looked at no more than once a second and never on the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import time
from pathlib import Path
from typing import Final

import aiohttp

from registry_spooler.errors import RegistryUnreachable
from registry_spooler.threads import in_thread

LOOK_AGAIN_SECONDS: Final = 1.0


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
        """The context for the next connection; RegistryUnreachable when the bundle cannot be read."""
        elsewhere = elsewhere and self._certificate is not None
        known = self._contexts.get(elsewhere)
        now = time.monotonic()
        if known is not None and (self._certificate is None or now - self._looked < LOOK_AGAIN_SECONDS):
            return known
        context = await in_thread(self._load, elsewhere)
        self._looked = now
        return context

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


def _unusable(certificate: Path, exc: OSError) -> RegistryUnreachable:
    if isinstance(exc, ssl.SSLError):
        return RegistryUnreachable(
            f"behind {str(certificate)!r}", "the file is no bundle of certificates in PEM format"
        )
    return RegistryUnreachable(f"behind {str(certificate)!r}", f"the certificate cannot be read ({exc.strerror})")


def connection_reason(exc: BaseException, origin: str) -> str:
    """One clause on why there is no answer, for the sentence of an error."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return _certificate_reason(exc.certificate_error)
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(exc, aiohttp.ClientConnectorError):
        inner = exc.os_error
        return _certificate_reason(inner) if isinstance(inner, ssl.SSLError) else _os_reason(inner)
    if isinstance(exc, ssl.SSLError):
        return _certificate_reason(exc)
    if isinstance(exc, aiohttp.ClientResponseError):
        return _garbled_reason(origin)
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "its answer broke off"
    if isinstance(exc, (TimeoutError, asyncio.TimeoutError)):
        return "it did not answer in time"
    return _os_reason(exc) if isinstance(exc, OSError) else "the connection failed"


def _garbled_reason(origin: str) -> str:
    if origin.startswith("http:"):
        return "what it answered is not HTTP; it may speak https (give the address as https://…)"
    return "what it answered is not HTTP"


def _certificate_reason(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _verification_reason(exc)
    reason = str(getattr(exc, "reason", "") or "")
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}:
        return "it does not speak TLS there; it may be plain http (give the address as http://…)"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"it refused the TLS handshake ({reason.lower().replace('_', ' ')}); it may ask for a client certificate"
    if "VERSION" in reason or "NO_SHARED_CIPHER" in reason:
        return f"no TLS version or cipher in common ({reason.lower().replace('_', ' ')})"
    said = reason.lower().replace("_", " ")
    return f"the TLS handshake failed ({said})" if said else "the TLS handshake failed"


_SELF_SIGNED: Final = frozenset({18, 19})
_UNKNOWN_ISSUER: Final = frozenset({2, 20, 21, 27})
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_WRONG_HOST: Final = frozenset({62, 64})


def _verification_reason(exc: ssl.SSLCertVerificationError) -> str:
    """By X509_V_ERR_ number (https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/)."""
    code = exc.verify_code
    if code in _SELF_SIGNED | _UNKNOWN_ISSUER:
        return "its certificate is signed by an authority that is not trusted here; give the CA with --certificate"
    if code == _EXPIRED:
        return "its certificate has expired"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; is the clock right?"
    if code in _WRONG_HOST:
        return "its certificate is for another host name than the one it was reached by"
    return f"its certificate is not accepted ({exc.verify_message})"


def _os_reason(exc: BaseException) -> str:
    number = getattr(exc, "errno", None)
    if number == errno.ECONNREFUSED:
        return "nothing listens there (connection refused)"
    if number in (errno.ECONNRESET, errno.EPIPE):
        return "it broke the connection off"
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "there is no route to it"
    if number is not None and number > 0:
        return os.strerror(number).lower()
    return "the connection failed"
