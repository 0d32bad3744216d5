"""Where a registry is: its origin, its URLs, and how a URL may be shown.

An origin (scheme, host, port) is what credentials are bound to. Without a scheme, http is used for
loopback hosts with no certificate and https for all else. URLs are plain strings here and are never
decoded and encoded again: a registry's upload URL may be signed.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from registry_spooler.errors import InvalidAddress

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SHOWN_PARAMETERS: Final = frozenset({"digest", "from", "last", "mount", "n", "scope", "service"})
"""The only parameters whose values are shown; all others may be signatures."""
_PARAMETER: Final = re.compile(r"[\w.~-]{1,40}", re.ASCII)
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
"""A host in lower case. ASCII alone: what other alphabets stand for is decided elsewhere, and differently."""
_IPV6: Final = re.compile(r"[0-9a-f:.]{2,45}(?:%[a-z0-9._-]{1,20})?")
_NUMERIC_HOST: Final = re.compile(r"[0-9a-fx.]+", re.IGNORECASE)
_HUB_HOSTS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
HUB_API_HOST: Final = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL; the default port is always written out here."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}")

    @property
    def authority(self) -> str:
        """`host[:port]`, as image references and docker's `config.json` write it."""
        return str(self).partition("://")[2]

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        return is_loopback(self.host)

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of an absolute http or https URL; ValueError for anything else."""
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise ValueError("a URL has no spaces, backslashes, control characters or letters beyond ASCII")
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"not an http or https URL: {redact(url)}")
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"a URL with a login in it is not accepted: {redact(url)}")
        if parts.port == 0:
            raise ValueError(f"0 is no port: {redact(url)}")
        if "[" in parts.netloc and ":" not in parts.hostname:
            raise ValueError(f"in brackets there is no IPv6 address: {redact(url)}")
        return cls(parts.scheme, _host(parts.hostname), parts.port or _DEFAULT_PORTS[parts.scheme])


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """A registry as a user names it: `host[:port]` or a URL, which may have a path before `/v2/`."""

    origin: Origin
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.origin}{self.prefix}"

    @property
    def base(self) -> str:
        """The prefix of all protocol URLs; ends in `/v2/`."""
        return f"{self.origin}{self.prefix}/v2/"

    @property
    def spellings(self) -> tuple[str, ...]:
        """How docker configurations may write the registry's `host[:port]`."""
        if self.is_docker_hub:
            return ("docker.io", "index.docker.io", HUB_API_HOST)
        bare = self.origin.authority
        return tuple(dict.fromkeys((bare, f"{bare}:{self.origin.port}" if self.origin.port in {80, 443} else bare)))

    @property
    def is_docker_hub(self) -> bool:
        """Whether it is Docker Hub, which has several names and puts single-component names into `library/`."""
        return self.origin.host == HUB_API_HOST

    @classmethod
    def parse(cls, text: str, *, has_certificate: bool = False) -> RegistryAddress:
        """Read `host[:port][/path]` or a URL; InvalidAddress says what is wrong with it."""
        stripped = text.strip()
        scheme, separator, _ = stripped.partition("://")
        try:
            origin = Origin.of(stripped if separator else f"https://{stripped}")
            parts = urlsplit(stripped if separator else f"https://{stripped}")
        except ValueError as exc:
            raise InvalidAddress(redact(stripped)[:100], _form_reason(stripped)) from exc
        if parts.query or parts.fragment:
            raise InvalidAddress(redact(stripped)[:100], "it has a query or a fragment")
        if not separator:
            scheme = "http" if origin.is_loopback and not has_certificate else "https"
        elif scheme == "http" and has_certificate:
            raise InvalidAddress(redact(stripped)[:100], "a certificate needs https, and it says http")
        if origin.host in _HUB_HOSTS:
            return cls(Origin("https", HUB_API_HOST, 443))
        port = parts.port or _DEFAULT_PORTS[scheme]
        return cls(Origin(scheme, origin.host, port), _path_prefix(parts.path))

    def url(self, *segments: str, query: str = "") -> str:
        """A protocol URL; the segments are quoted but for `/` and `:`."""
        path = "/".join(quote(segment, safe="/:@") for segment in segments)
        return f"{self.base}{path}" + (f"?{query}" if query else "")


def _host(text: str) -> str:
    """Return the host without a dot at its end; ValueError when it can be neither a name nor an address."""
    if ":" in text:
        if not _IPV6.fullmatch(text):
            raise ValueError("its host is no IPv6 address")
        ipaddress.IPv6Address(text.partition("%")[0])
        return text
    host = text.removesuffix(".")
    if not _NAME.fullmatch(host):
        raise ValueError("its host is no name: labels of at most 63 letters, digits, '-' and '_', with dots between")
    return host


def _form_reason(text: str) -> str:
    if "@" in text:
        return "a login is not part of it; give --username and --password-file"
    return (
        "it is given as host[:port] or as an http or https URL, and the host is a name in ASCII letters or an address"
    )


def _path_prefix(path: str) -> str:
    return path.rstrip("/").removesuffix("/v2")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: `localhost`, a name under it, or a loopback address."""
    address = literal_address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


class Reach(enum.Enum):
    """How far away an address can be."""

    HERE = "this machine or this link"
    PRIVATE = "a private network"
    PUBLIC = "anywhere"


def reach_of(address: Address) -> Reach:
    """Return how far away an address can be; of one that carries an IPv4 address (NAT64, 6to4, …), that one's reach."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return reach_of(inner)
        if address in _LOCAL_NAT64 or (address.is_reserved and not address.is_loopback and not address.is_unspecified):
            return Reach.PRIVATE
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return Reach.HERE
    return Reach.PUBLIC if address.is_global else Reach.PRIVATE


def literal_address(host: str) -> Address | None:
    """Return the address that a host spells out, in any form that a resolver takes (`127.1`, `0x7f000001`), or None."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        if not _NUMERIC_HOST.fullmatch(host):
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def redact(url: str) -> str:
    """Return the URL as it may be logged: no login, and only the harmless parts of the query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(a URL that cannot be read)"
    if ":" in host:
        host = f"[{host}]"
    shown = "&".join(
        f"{key}={value}" if key in _SHOWN_PARAMETERS else f"{key if _PARAMETER.fullmatch(key) else ''}=…"
        for key, value in parse_qsl(parts.query, keep_blank_values=True)[:20]
    )
    start = f"{parts.scheme}://{host}{port}" if parts.scheme and host else f"{host}{port}"
    return f"{start}{parts.path}" + (f"?{shown}" if shown else "")
