"""The start of the program `registry-client`: what an exec starts hands its work to the daemon, where there is one.

`kubectl spool` starts the program once for each of its calls. To import all of it would cost a second of a slow
processor and 40 MiB each time, and the daemon has all of it at hand: so its standard input, output and error go to the
daemon over a Unix socket, with its arguments, and it waits for its exit code. The daemon answers under the
spool directory's device and inode, in a folder that only this user can enter. Where no daemon of the same version,
settings and user answers there, the program does the work itself.

Only what is needed for that is imported here. A message is one packet; the daemon's side is `daemon/remote_jobs.py`.

1. The daemon: `greeting()`.
2. The program: `request(...)`, and the three descriptors.
3. The daemon: `TAKEN`, or `REFUSED`, after which the program does the work itself.
4. The daemon: the exit code, as one byte, when it has closed the descriptors.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from registry_spooler.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

REMOTE = ("--remote", "--stdin-bytes")
"""How the arguments of a remote call begin; the number of bytes and the command follow."""
TAKEN, REFUSED = b"taken", b"refused"
PACKET_BYTES = 128 << 10
"""The longest message; a longer command line is not handed over."""
ANSWER_SECONDS = 5.0
"""For the daemon to greet; one that is busier than that cannot help."""
_PLACES = ("/dev/shm", "/tmp")  # noqa: S108 - the folder in there has to be this user's own
"""A container's root file system may be read-only; its /dev/shm never is."""
_SETTINGS = ("REGISTRY_CLIENT_", "REGISTRY_SPOOLER_")
_LOST = 143
"""The exit code when the daemon is gone: as if the program had been ended."""


def main() -> NoReturn:
    """Run the program to its exit code."""
    if tuple(sys.argv[1:3]) == REMOTE and (code := _handed_over(sys.argv[3:])) is not None:
        os._exit(code)
    from registry_spooler.cli.registry_client.command_line import main as main_here

    main_here()


def greeting() -> bytes:
    """Return what a daemon says of itself."""
    return f"registry-spooler {__version__}".encode()


def request(arguments: list[str]) -> bytes:
    """Return a call as one message: the number of arguments, these, and the settings that the environment holds."""
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_SETTINGS))
    return os.fsencode("\0".join((str(len(arguments)), *arguments, *settings)))


def socket_paths(directory: str) -> Iterator[str]:
    """Yield where a spool directory's daemon may listen. OSError when there is no such directory."""
    status = os.stat(directory)
    for place in _PLACES:
        yield f"{place}/registry-spooler-{os.geteuid()}/{status.st_dev:x}-{status.st_ino:x}"


def is_private(folder: str) -> bool:
    """Return whether a folder is this user's, and nobody else can enter it."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return status.st_mode & 0o170077 == 0o040000 and status.st_uid == os.geteuid()


def peer_uid(connection: socket.socket) -> int:
    """Return which user has the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def _handed_over(arguments: list[str]) -> int | None:
    """Let the daemon do the work; return its exit code, or None when no daemon has taken it."""
    try:
        for path in socket_paths(_directory()):
            if is_private(os.path.dirname(path)) and (connection := _connected(path)) is not None:
                with connection:
                    return _wait(connection) if _is_taken(connection, arguments) else None
    except OSError:
        return None
    return None


def _directory() -> str:
    for prefix in _SETTINGS:
        for name in ("DIRECTORY", "directory"):
            if found := os.environ.get(prefix + name):
                return found
    return "/spool"


def _connected(path: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(path)
        if peer_uid(connection) == os.geteuid() and connection.recv(PACKET_BYTES) == greeting():
            return connection
    except OSError:
        pass
    connection.close()
    return None


def _is_taken(connection: socket.socket, arguments: list[str]) -> bool:
    connection.settimeout(None)
    socket.send_fds(connection, [request(arguments)], [0, 1, 2])
    return connection.recv(PACKET_BYTES) == TAKEN


def _wait(connection: socket.socket) -> int:
    """Wait for the exit code, or for the caller to go; to close the connection cancels the work."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    for descriptor in (0, 1, 2):
        poll.register(descriptor, 0)  # what is reported unasked: that the other end has been closed
    if connection.fileno() not in dict(poll.poll()):
        return _LOST
    return next(iter(connection.recv(1)), _LOST)
