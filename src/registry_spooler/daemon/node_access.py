"""A node's way to the registry: TCP connections to its loopback are carried on to the registry's Service.

It runs on every node, so it is small: a thread for each direction of a connection, in which the kernel moves the bytes
from one socket to the other (splice), and nothing is imported but the standard library. What passes through is not
looked at; TLS and logins are between the node and the registry.

    python3 -m registry_spooler.daemon.node_access 127.0.0.1:5001 registry:5000
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Final

_PIPE_BYTES: Final = 1 << 20
"""At most that much is asked for at once; the kernel gives what its pipe holds, 64 KiB unless it is told otherwise."""
_DIAL_SECONDS: Final = 10
_CONNECTIONS: Final = 128
"""At once, each with six descriptors; what comes beyond that waits in the listening socket's queue."""


def forward(listener: socket.socket, registry: tuple[str, int]) -> None:
    """Carry every connection that the listener accepts on to the registry, until the listener is closed."""
    free = threading.BoundedSemaphore(_CONNECTIONS)
    while True:
        free.acquire()
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, registry, free), daemon=True).start()


def _serve(client: socket.socket, registry: tuple[str, int], free: threading.BoundedSemaphore) -> None:
    try:
        with client:
            _connect(client, registry)
    finally:
        free.release()


def _connect(client: socket.socket, registry: tuple[str, int]) -> None:
    try:
        # The name is looked up each time: the Service may have been made anew.
        server = socket.create_connection(registry, timeout=_DIAL_SECONDS)
    except OSError as exc:
        sys.stderr.write(f"{registry[0]}:{registry[1]} cannot be reached: {exc}\n")
        return
    with server:
        server.settimeout(None)
        for end in (client, server):
            # A node or a pod that vanished says nothing; without this its connection would stay for ever.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        upload = threading.Thread(target=_move, args=(client, server), daemon=True)
        upload.start()
        _move(server, client)
        upload.join()


def _move(source: socket.socket, target: socket.socket) -> None:
    """Move bytes to their end and pass the end on; when the connection breaks, break both of its sides."""
    outlet, inlet = os.pipe()
    try:
        while count := os.splice(source.fileno(), inlet, _PIPE_BYTES):
            while count:
                count -= os.splice(outlet, target.fileno(), count)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
    finally:
        os.close(outlet)
        os.close(inlet)


def address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT. ValueError if there is no port."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main() -> None:
    """Listen on the first argument's address and connect to the second's until SIGTERM comes."""
    listen, registry = map(address, sys.argv[1:3])
    # The first process of a container is sent no signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        listener = socket.create_server(listen)
    except OSError as exc:
        sys.exit(f"cannot listen on {sys.argv[1]}: {exc.strerror}; choose another port for the registry on the nodes")
    with listener:
        forward(listener, registry)


if __name__ == "__main__":
    main()
