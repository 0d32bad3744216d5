"""When a request is sent again, and why there was no answer, in words.

A request that can be repeated is, with full jitter, for a short while only: whoever called has more
patience than a client should have (the spool tries for ever). What a host asks for with `Retry-After`
binds every request to that host (RFC 9110, section 10.2.3).

The library's errors are told apart here, so that "the connection failed" is said of almost nothing.
"""

from __future__ import annotations

import errno
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import anyio

from registry_spooler.backoff import RETRY_AFTER_MAX_SECONDS, Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient one request is."""

    tries: int = 5
    backoff: Backoff = field(default_factory=lambda: Backoff(base_seconds=0.5))
    patience_seconds: float = 20.0
    """The most that is slept before one more try; who asks for more than this is told to come back later."""


@dataclass(slots=True)
class HostPauses:
    """Until when each host wants no requests."""

    clock: Callable[[], float] = time.monotonic
    _until: dict[str, float] = field(default_factory=dict)

    def pause(self, host: str, seconds: float) -> None:
        """Leave a host in peace; a shorter pause never ends a longer one."""
        until = self.clock() + min(seconds, RETRY_AFTER_MAX_SECONDS)
        self._until[host] = max(until, self._until.get(host, 0.0))

    def remaining_seconds(self, host: str) -> float:
        """How long from now; 0 when it may be asked."""
        until = self._until.get(host)
        if until is None:
            return 0.0
        remaining = until - self.clock()
        if remaining <= 0:
            del self._until[host]
            return 0.0
        return remaining

    async def wait(self, host: str) -> None:
        """Sleep until the host may be asked again."""
        # Another answer may have made it longer.
        while remaining := self.remaining_seconds(host):  # noqa: ASYNC110 - the time itself is what is waited for
            await anyio.sleep(remaining)


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The `Retry-After` of an answer in either of its forms, seconds or a date; None when there is none."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX_SECONDS)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, LookupError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)


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
    detail = reason.lower().replace("_", " ")
    if reason in _PLAIN_HTTP:
        return "it does not speak TLS there; it may be plain http (give the address as http://…)"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return f"it refused the TLS handshake ({detail}); it may ask for a client certificate"
    if "VERSION" in reason or "NO_SHARED_CIPHER" in reason:
        return f"no TLS version or cipher in common ({detail})"
    return f"the TLS handshake failed ({detail})" if detail else "the TLS handshake failed"


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
