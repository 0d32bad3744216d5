"""An answer has a deadline, whatever keeps coming meanwhile; a transfer has none as long as it moves."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial

import anyio
import pytest

from registry_spooler import __version__
from registry_spooler.backoff import Backoff
from registry_spooler.errors import RegistryUnreachable
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.registry.http import transport
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.http.transport import Request
from registry_spooler.registry.registry_client import RegistryClient
from support.registries.lyingserver import body_of, lying, page

QUICK = RetryPolicy(tries=5, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01))
NOTHING = Digest.of(b"")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    for module in ("http.http_client", "uploads.chunks", "blobs"):
        short = partial(Request, head_seconds=0.3, silence_seconds=0.3)
        monkeypatch.setattr(f"registry_spooler.registry.{module}.Request", short)
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(transport, "BODY_SECONDS", 0.3)


async def _trickle(writer, content: bytes) -> None:
    for byte in content:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def test_a_head_that_comes_byte_by_byte_is_given_up_after_two_tries():
    heads = []

    async def answer(head, reader, writer):
        heads.append(head)
        await _trickle(writer, page(200, "X-Padding: " + "x" * 1000 + "\r\n", b"{}"))

    async with lying(answer) as url, RegistryClient(url, retry=QUICK) as client:
        with anyio.fail_after(20), pytest.raises(RegistryUnreachable, match="did not answer in time"):
            await client.get_manifest(Reference("a"))
    assert len(heads) == 2
    assert f"User-Agent: registry-spooler/{__version__}\r\n" in heads[0]


async def test_informational_answers_extend_nothing():
    async def answer(head, reader, writer):
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with lying(answer) as url, RegistryClient(url, retry=QUICK) as client:
        with anyio.fail_after(20), pytest.raises(RegistryUnreachable, match="did not answer in time"):
            await client.ping()


@pytest.mark.parametrize("status", [200, 404])
async def test_a_small_body_that_comes_byte_by_byte_is_given_up(status):
    async def head_at_once(head, reader, writer):
        whole = page(status, body=b"{" + b" " * 1000 + b"}")
        writer.write(whole[:-1000])
        await _trickle(writer, whole[-1000:])

    async with lying(head_at_once) as url, RegistryClient(url, retry=QUICK) as client:
        with anyio.fail_after(20), pytest.raises(RegistryUnreachable, match="did not answer in time"):
            await client.get_manifest(Reference("a"))


async def test_the_deadline_is_counted_from_the_end_of_the_body():
    """A blob that is read slowly, but read, is sent however long it takes."""
    content = bytes(6 << 20)
    received = hashlib.sha256()

    async def answer(head, reader, writer):
        if head.startswith("POST"):
            writer.write(page(202, "Location: /u\r\n"))
        elif head.startswith("PUT"):
            left = len(content) if "Content-Length: 0" not in head else 0
            while left:
                piece = await reader.read(1 << 18)
                received.update(piece)
                left -= len(piece)
                await asyncio.sleep(0.05)
            writer.write(page(201, f"Docker-Content-Digest: {Digest.of(content)}\r\n"))

    async with lying(answer) as url, RegistryClient(url, retry=QUICK) as client:
        with anyio.fail_after(60):
            assert await client.put_bytes("a", content) == Digest.of(content)
    assert received.hexdigest() == Digest.of(content).hex


async def test_a_body_that_nobody_reads_is_given_up():
    async def answer(head, reader, writer):
        if head.startswith("POST"):
            writer.write(page(202, "Location: /u\r\n"))
        elif head.startswith("PUT"):
            await asyncio.sleep(60)

    async with lying(answer) as url, RegistryClient(url, retry=QUICK) as client:
        with anyio.fail_after(30), pytest.raises(RegistryUnreachable):
            await client.put_bytes("a", bytes(64 << 20))


async def test_a_download_that_moves_is_waited_for_and_one_that_trickles_is_not():
    content = b"x" * (1 << 20)

    async def answer(head, reader, writer):
        writer.write(page(200, body=content)[: -len(content)])
        await body_of(head, reader)
        if "slow" in head:
            for start in range(0, len(content), 1 << 15):
                writer.write(content[start : start + (1 << 15)])
                await writer.drain()
                await asyncio.sleep(0.05)
        else:
            await _trickle(writer, content)

    async with lying(answer) as url, RegistryClient(url, retry=QUICK) as client:
        with anyio.fail_after(60):
            assert await client.get_bytes("slow", Digest.of(content), limit_bytes=1 << 21) == content
        with anyio.fail_after(30), pytest.raises(RegistryUnreachable, match="did not answer in time"):
            await client.get_bytes("trickling", Digest.of(content), limit_bytes=1 << 21)
