"""Under which names the page and the status are answered, against DNS rebinding.

A web page on evil.example can have its own name resolve to a port-forward on the visitor's machine, and read what
answers there; its requests then carry that foreign name as their Host. Addresses, names without a dot and
names of a cluster's services cannot be had by a stranger.
https://owasp.org/www-community/attacks/DNS_Rebinding
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Final

_OWN_ENDINGS: Final = (".localhost", ".svc", ".svc.cluster.local")


class Hosts:
    """The names that are ours: this machine's own, and those that the settings add."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(_bare(name) for name in (*names, socket.gethostname()))

    def allow(self, headers: Sequence[str]) -> bool:
        """Return whether a request with these `Host` headers may be answered; one without any is no browser's."""
        return all(self._is_ours(_bare(header)) for header in headers)

    def _is_ours(self, host: str) -> bool:
        return "." not in host or host in self._names or host.endswith(_OWN_ENDINGS) or _is_address(host)


def _bare(host: str) -> str:
    """Return the host in lower case, without its port and without the dot of the DNS root."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or not (port.isdigit() or not port):
        name = host.strip().lower()
    return name.rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
