"""The start of the program `registry-spooler`: what has to be done before most of it is imported.

aiohttp makes a TLS context when it is imported, and reads every authority of the system into it: 1.8 MiB, and a
sixth of the time to the start. No request of ours uses it (`registry.tls` has our own), so OpenSSL finds no
authorities meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from registry_spooler.daemon.stop_signals import STOP_SIGNALS

_AUTHORITIES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL looks instead of the system's own places: https://docs.openssl.org/3.0/man7/openssl-env/"""


def main() -> None:
    """Run the program."""
    STOP_SIGNALS.install()
    with without_authorities():
        from registry_spooler.daemon.main import command
    command(prog_name="registry-spooler")


@contextmanager
def without_authorities() -> Iterator[None]:
    """Have TLS contexts that are made in this block trust nobody; for a process with one thread."""
    kept = {name: os.environ.get(name) for name in _AUTHORITIES}
    os.environ.update(dict.fromkeys(_AUTHORITIES, os.devnull))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
