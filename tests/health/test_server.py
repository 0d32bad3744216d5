from __future__ import annotations

import asyncio
import logging

import pytest

from registry_spooler.health.server import CONNECTIONS_MAX, Answers, HealthServer, Hosts, listening
from support.health.health_port import HealthPort

PATHS = ("/", "/live", "/ready", "/healthz", "/metrics", "/status")


async def test_head_is_get_without_a_body(port: HealthPort) -> None:
    for path in PATHS:
        async with port.session.get(port.url + path) as get, port.session.head(port.url + path) as head:
            assert (200, b"") == (head.status, await head.read())
            assert get.headers["Content-Type"] == head.headers["Content-Type"]
            assert int(head.headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
async def test_nothing_but_get_and_head(port: HealthPort, method: str) -> None:
    answer = await port.send(f"{method} /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    head = answer.decode().partition("\r\n\r\n")[0].split("\r\n")
    assert "HTTP/1.1 405 Method Not Allowed" == head[0]
    assert "Allow: GET, HEAD" in head


async def test_a_request_with_a_body_is_refused_and_its_body_never_read(port: HealthPort) -> None:
    for body in (b"Content-Length: 1000000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"):
        answer = await port.send(b"GET /status HTTP/1.1\r\nHost: x\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_what_is_not_there_is_not_repeated(port: HealthPort) -> None:
    for path in ("/<script>alert(1)</script>", "/status/", "//x", "/page.html", "/static/", "/metrics.html"):
        status, content_type, text = await port.get(path)
        assert (404, "application/json") == (status, content_type)
        assert "script" not in text


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\x1b[2J\x1b]0;owned\x07 HTTP/1.1\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header\x1b[31m: x\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 5_000 + b"\r\n",
    ],
)
async def test_junk_is_refused_and_nothing_of_it_comes_back_or_into_the_log(
    port: HealthPort, caplog: pytest.LogCaptureFixture, junk: bytes
) -> None:
    caplog.set_level(logging.DEBUG)

    answer = await port.send(junk)

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b'{"error":"this request cannot be answered here"}\n' == answer.partition(b"\r\n\r\n")[2]
    for held in (answer, caplog.text.encode()):
        assert b"\x1b" not in held
        assert b"aaaaa" not in held
        assert b"owned" not in held


async def test_every_answer_says_that_it_is_nothing_but_itself(port: HealthPort) -> None:
    for path in (*PATHS, "/nothing"):
        async with port.session.get(port.url + path) as answer:
            assert {
                "Server": "registry-spooler",
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
            }.items() <= dict(answer.headers).items()
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy


async def test_the_newest_connection_is_always_served(port: HealthPort) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", port.health.port) for _ in range(CONNECTIONS_MAX)]
    for _, writer in idle:
        writer.write(b"GET /live HTTP/1.1\r\n")  # begun, and never finished
        await writer.drain()

    status, _ = await asyncio.wait_for(port.json("/live"), 5)

    assert 200 == status
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(_read_all(idle[0][0]), 5)
    for _, writer in idle:
        writer.close()


async def test_a_connection_gets_no_older_than_it_may(port: HealthPort) -> None:
    server = HealthServer(port_answers(port), connection_seconds=0.2)
    async with listening(server, "127.0.0.1", 0) as number:
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"GET /live HTTP/1.1\r\nX-Slow: ")

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(_read_all(reader), 5)

        writer.close()


async def test_an_answer_that_cannot_be_made_is_a_500_and_a_line_in_the_log(
    port: HealthPort, caplog: pytest.LogCaptureFixture
) -> None:
    del port.state.last_scan

    status, _, text = await port.get("/status")

    assert (500, '{"error":"internal error; see the log"}\n') == (status, text)
    assert "a request to the health port could not be answered" in caplog.text
    assert 200 == (await port.get("/live"))[0]


async def test_a_port_that_is_taken_is_an_error_at_once(port: HealthPort) -> None:
    with pytest.raises(OSError, match="address already in use"):
        async with listening(HealthServer(port_answers(port)), "127.0.0.1", port.health.port):
            pass


def port_answers(port: HealthPort) -> Answers:
    """No answers of its own are needed to hold connections open."""
    return Answers(None, port.health.checks, None, None, Hosts())


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    """Until the end, or the reset that an abort is."""
    content = await reader.read()
    if reader.at_eof():
        raise ConnectionResetError
    return content
