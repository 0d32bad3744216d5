"""The way of a node to the registry: a real process, with a server of the test's own behind it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

MODULE = "registry_spooler.daemon.node_access"


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def start(port: int, to: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", MODULE, f"127.0.0.1:{port}", f"localhost:{to}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def dial(port: int, process: subprocess.Popen[str]) -> socket.socket:
    """Connect as soon as the process listens."""
    while True:
        assert process.poll() is None, process.communicate()[1]
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            continue


@contextmanager
def running(port: int, to: int) -> Iterator[subprocess.Popen[str]]:
    with start(port, to) as process:
        try:
            dial(port, process).close()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 20), b""))


@contextmanager
def echo() -> Iterator[int]:
    """A server that reads to the end, and only then answers with what it has read, in reverse."""

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.sendall(read_all(connection)[::-1])

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_every_byte_arrives_and_so_does_the_end() -> None:
    """More than any buffer on the way holds, on several connections side by side."""
    sent = [bytes([number]) * 3_000_000 + b"end" for number in range(8)]
    with echo() as server, running(port := unused_port(), server) as process, ExitStack() as stack:
        connections = [stack.enter_context(dial(port, process)) for _ in sent]
        for connection, content in zip(connections, sent, strict=True):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        assert [content[::-1] for content in sent] == [read_all(connection) for connection in connections]


def test_a_registry_that_is_not_there_closes_the_connection_and_may_come_later() -> None:
    later = unused_port()
    with running(port := unused_port(), later) as process:
        with dial(port, process) as connection:
            assert b"" == read_all(connection)
        assert process.stderr is not None
        assert f"localhost:{later} cannot be reached" in process.stderr.readline()
        with socket.create_server(("127.0.0.1", later)) as listener, dial(port, process) as connection:
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"here")
                assert b"here" == connection.recv(4)


@pytest.mark.parametrize("broken", ["node", "registry"])
def test_a_connection_that_breaks_at_one_end_breaks_at_the_other(broken: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        start(port := unused_port(), listener.getsockname()[1]) as process,
    ):
        with dial(port, process) as node:
            registry, _ = listener.accept()
            with registry:
                registry.settimeout(30)
                ends = {"node": node, "registry": registry}
                gone = ends.pop(broken)
                # Closing with this option sends a reset.
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                gone.close()
                (left,) = ends.values()
                with suppress(ConnectionResetError):
                    assert b"" == left.recv(1)
        process.terminate()
        assert 0 == process.wait(timeout=30)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([sys.executable, "-m", MODULE, f"127.0.0.1:{port}", "registry:5000"],
                              capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
    assert 1 == done.returncode
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "choose another port" in done.stderr


def test_it_imports_nothing_of_the_daemon() -> None:
    """What a node pays for it is the interpreter."""
    code = f"import sys, {MODULE}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    imported = done.stdout.split()
    ours = ["registry_spooler.version", "registry_spooler", "registry_spooler.daemon", MODULE]
    assert ours == [name for name in imported if name.startswith("registry_spooler")]
    assert "asyncio" not in imported
