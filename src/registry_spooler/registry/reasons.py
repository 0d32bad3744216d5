"""Why there is no answer, in words: one clause for the sentence of an error.

The library's errors are told apart here, so that "the connection failed" is said of almost nothing.
"""

from __future__ import annotations

import errno
import os
import ssl
from typing import Final

import aiohttp

_BY_KIND: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (aiohttp.ClientConnectorDNSError, "its name cannot be resolved"),
    (aiohttp.ServerDisconnectedError, "it closed the connection without an answer"),
    (aiohttp.ClientPayloadError, "its answer broke off"),
    (TimeoutError, "it did not answer in time"),
)
_PLAIN_HTTP: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)


def connection_reason(exc: BaseException, origin: str) -> str:
    """What kept the registry at `origin` from answering."""
    for kind, reason in _BY_KIND:
        if isinstance(exc, kind):
            return reason
    if isinstance(exc, aiohttp.ClientResponseError):
        return _garbled_reason(origin)
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return _tls_reason(exc.certificate_error)
    cause = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    if isinstance(cause, ssl.SSLError):
        return _tls_reason(cause)
    if (
        isinstance(exc, aiohttp.ClientConnectorError)
        and isinstance(cause, ConnectionResetError)
        and exc.ssl is not False
    ):
        return "it broke the TLS handshake off; it may want another version of TLS, or a client certificate"
    return _os_reason(cause)


def _garbled_reason(origin: str) -> str:
    if origin.startswith("http:"):
        return "what it answered is not HTTP; it may speak https (give the address as https://…)"
    return "what it answered is not HTTP"


def _tls_reason(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _verification_reason(exc)
    reason = str(getattr(exc, "reason", "") or "")
    said = reason.lower().replace("_", " ")
    if reason in _PLAIN_HTTP:
        return "it does not speak TLS there; it may be plain http (give the address as http://…)"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"it refused the TLS handshake ({said}); it may ask for a client certificate"
    if "VERSION" in reason or "NO_SHARED_CIPHER" in reason:
        return f"no TLS version or cipher in common ({said})"
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
