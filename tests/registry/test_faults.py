"""Pushes over a connection that breaks: every step once, and once more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import orjson
import pytest

from registry_spooler.backoff import Backoff
from registry_spooler.errors import RegistryAnswer, RegistryUnreachable
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import EMPTY_JSON, Digest
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.http.transport import Request
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.vendors import UploadForm, UploadOptions
from support.registries.faultproxy import Fault, Headers, running_proxy
from support.registries.memory_blobs import Blob, noise
from support.registries.playedregistry import Behaviour, running_registry

MIB = 1 << 20
QUICK = RetryPolicy(tries=5, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01), patience_seconds=3.0)
CHUNKS = UploadOptions(chunk_size_bytes=MIB)


def _quick(url: str, options: UploadOptions | None = CHUNKS) -> RegistryClient:
    return RegistryClient(url, upload_options=options, retry=QUICK)


def _manifest(blob: Blob) -> Manifest:
    config = {"mediaType": mediatype.OCI_CONFIG, "digest": str(Digest.of(EMPTY_JSON)), "size": 2}
    layer = {"mediaType": mediatype.OCI_LAYER, "digest": str(blob.digest), "size": len(blob.content)}
    document = {"schemaVersion": 2, "mediaType": mediatype.OCI_MANIFEST, "config": config, "layers": [layer]}
    return Manifest.parse(orjson.dumps(document))


async def _push(client: RegistryClient, repository: str, blob: Blob) -> Progress:
    """Everything that a push asks of a registry, and the look at what came of it."""
    progress, manifest = Progress(), _manifest(blob)
    if await client.blob_exists(repository, blob.digest) is None:
        await client.put_blob(repository, blob.opener, progress)
    await client.put_bytes(repository, EMPTY_JSON, progress)
    await client.put_manifest(Reference(repository), manifest)
    descriptor = await client.head_manifest(Reference(repository))
    assert descriptor is not None
    assert descriptor.digest == manifest.digest
    async with client.open_blob(repository, blob.digest, len(blob.content)) as pieces:
        assert b"".join([piece async for piece in pieces]) == blob.content
    return progress


STEPS = 12
"""More requests than a push of three chunks makes: HEAD, POST, 3 PATCH, PUT, POST, PUT, PUT, HEAD, GET."""


@pytest.mark.parametrize("rewindable", [True, False], ids=["rewindable", "once"])
@pytest.mark.parametrize(
    ("kind", "times"),
    [("request", 1), ("request", 2), ("answer", 1), ("answer", 2), ("half the answer", 1), ("500", 2), ("502", 1)],
)
@pytest.mark.parametrize("step", range(STEPS))
async def test_every_step_of_a_push_may_go_wrong(registry, repository, step, kind, times, rewindable):
    fault = {
        "request": Fault(skip=step, times=times, cut_request_after=300_000),
        "answer": Fault(skip=step, times=times, cut_answer_after=0),
        "half the answer": Fault(skip=step, times=times, cut_answer_after=60),
        "500": Fault(skip=step, times=times, answer=(500, [], b'{"errors":[{"code":"UNKNOWN"}]}')),
        "502": Fault(skip=step, times=times, answer=(502, [("Content-Type", "text/html")], b"<html>bad gateway")),
    }[kind]
    blob = Blob(noise(3 * MIB - 100), rewindable=rewindable, knows_size=rewindable)
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        await _push(client, repository, blob)
        assert fault.times == 0 or step >= len(proxy.seen) - 1


async def test_a_broken_stream_is_sent_again(registry, repository):
    blob = Blob(noise(3 * MIB), rewindable=False, knows_size=False)
    fault = Fault(method="PATCH", cut_request_after=MIB)
    options = UploadOptions(form=UploadForm.STREAM)
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url, options) as client:
        await _push(client, repository, blob)
    assert blob.opened == 2


async def test_a_broken_download_goes_on_where_it_broke(registry, repository):
    blob = Blob(noise(5 * MIB))
    faults = [Fault(method="GET", path="/blobs/", cut_answer_after=2 * MIB) for _ in range(2)]
    async with running_proxy(registry.host, *faults) as proxy, _quick(proxy.url) as client:
        await _push(client, repository, blob)
        ranges = [seen.headers.get("range") for seen in proxy.seen if seen.method == "GET"]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(text is not None and text.startswith("bytes=") for text in ranges[1:])


def _header(name: str, value: str | None) -> Callable[[int, Headers], tuple[int, Headers]]:
    """Replace a header of the registry's answer, or leave it out."""

    def rewrite(status: int, headers: Headers) -> tuple[int, Headers]:
        kept = [(key, text) for key, text in headers if key.lower() != name.lower()]
        return status, kept if value is None else [*kept, (name, value)]

    return rewrite


@pytest.mark.parametrize("times", [1, 99])
@pytest.mark.parametrize("text", ["0-0", "0-5", "0-99999999", "bytes=0-7", "5-1", "nonsense", None])
async def test_a_wrong_range_changes_nothing(registry, repository, text, times):
    blob = Blob(noise(3 * MIB))
    fault = Fault(method="PATCH", times=times, rewrite=_header("Range", text))
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        await _push(client, repository, blob)
    assert blob.opened == 1


async def test_a_location_that_is_missing_leaves_the_one_before(repository):
    blob = Blob(noise(3 * MIB))
    async with running_registry(Behaviour(relative_location=True)) as played:
        fault = Fault(method="PATCH", times=99, rewrite=_header("Location", None))
        host = played.url.removeprefix("http://")
        async with running_proxy(host, fault) as proxy, _quick(proxy.url) as client:
            await _push(client, repository, blob)
    assert blob.opened == 1


@pytest.mark.parametrize("lie", ["/v2/a/b/blobs/uploads/another?_state=x", "/elsewhere", "?_state=old"])
async def test_a_lying_location_costs_the_blob_a_restart(registry, repository, lie):
    blob = Blob(noise(3 * MIB))
    fault = Fault(method="PATCH", rewrite=_header("Location", lie))
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        await _push(client, repository, blob)
        assert proxy.count("POST") == 3


async def test_a_location_where_nobody_listens(registry, repository, unused_tcp_port):
    blob = Blob(noise(3 * MIB))
    fault = Fault(method="PATCH", times=99, rewrite=_header("Location", f"http://127.0.0.1:{unused_tcp_port}/x"))
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        with pytest.raises(RegistryUnreachable, match="nothing listens there"):
            await client.put_blob(repository, blob.opener, Progress())


@pytest.mark.parametrize("kind", ["rewindable", "size known", "size unknown"])
async def test_what_arrived_of_a_broken_chunk_is_not_sent_again(repository, kind):
    """Distribution 3 keeps it and says how much that is."""
    blob = Blob(noise(4 * MIB), rewindable=kind == "rewindable", knows_size=kind != "size unknown")
    async with running_registry(Behaviour(keeps_partial=True, relative_location=True)) as played:
        faults = [Fault(method="PATCH", skip=skip, cut_request_after=700_000) for skip in (0, 2)]
        host = played.url.removeprefix("http://")
        async with running_proxy(host, *faults) as proxy, _quick(proxy.url) as client:
            progress = await _push(client, repository, blob)
            starts = [int(s.headers["content-range"].split("-")[0]) for s in proxy.seen if s.method == "PATCH"]
    assert blob.opened == 1
    assert starts == sorted(starts)
    assert any(start % MIB for start in starts)
    assert progress.retries["upload"] == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_binds_the_whole_host(registry, repository, form):
    moment = datetime.now(UTC) + timedelta(seconds=2)
    text = "1" if form == "seconds" else format_datetime(moment, usegmt=True)
    fault = Fault(method="HEAD", answer=(429, [("Retry-After", text)], b""))
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        begun = datetime.now(UTC)
        assert await client.blob_exists(repository, Digest.of(b"")) is None
        await client.ping()
        waited = (datetime.now(UTC) - begun).total_seconds()
    assert 0.5 <= waited < 10
    assert client.retries["status"] == 1


async def test_a_long_retry_after_is_the_callers(registry, repository):
    fault = Fault(answer=(503, [("Retry-After", "60")], b""))
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        for _ in range(2):
            with pytest.raises(RegistryAnswer) as caught:
                await client.blob_exists(repository, Digest.of(b""))
            assert caught.value.temporary
            assert 50 < (caught.value.retry_after_seconds or 0) <= 60
        assert len(proxy.seen) == 1


async def test_patience_ends(registry, repository):
    fault = Fault(times=99, answer=(503, [], b""))
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        with pytest.raises(RegistryAnswer) as caught:
            await client.blob_exists(repository, Digest.of(b""))
        assert (caught.value.status, len(proxy.seen)) == (503, 5)


async def test_a_request_too_large_is_sent_in_smaller_chunks(registry, repository):
    blob = Blob(noise(4 * MIB))
    refusal = Fault(method="PATCH", times=2, answer=(413, [], b"too large"), reads_body=False)
    options = UploadOptions(chunk_size_bytes=4 * MIB)
    async with running_proxy(registry.host, refusal) as proxy, _quick(proxy.url, options) as client:
        await _push(client, repository, blob)
        sizes = [int(seen.headers["content-length"]) for seen in proxy.seen if seen.method == "PATCH"]
    assert sizes == [4 * MIB, 2 * MIB, MIB, MIB, MIB, MIB]


async def test_an_answer_that_comes_before_the_body_was_read_is_understood(registry, repository):
    blob = Blob(noise(30 * MIB))
    body = orjson.dumps({"errors": [{"code": "DENIED", "message": "quota exceeded"}]})
    refusal = Fault(method="PATCH", answer=(403, [], body), reads_body=False)
    async with running_proxy(registry.host, refusal) as proxy, _quick(proxy.url, None) as client:
        with pytest.raises(RegistryAnswer, match="DENIED: quota exceeded") as caught:
            await client.put_blob(repository, blob.opener, Progress())
    assert not caught.value.temporary


async def test_a_silent_registry_is_given_up(registry, monkeypatch):
    monkeypatch.setattr("registry_spooler.registry.http.http_client.Request", partial(Request, head_seconds=0.2))
    monkeypatch.setattr("registry_spooler.registry.http.transport.CONNECT_SECONDS", 0.2)
    fault = Fault(delay_seconds=30, times=99)
    async with running_proxy(registry.host, fault) as proxy, _quick(proxy.url) as client:
        with pytest.raises(RegistryUnreachable, match="did not answer in time"):
            await client.ping()
