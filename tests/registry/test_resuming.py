"""How an upload goes on after each answer; and the window and the budget that it goes on with."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.aio import task_group
from registry_spooler.backoff import Backoff
from registry_spooler.errors import ArchiveError, RegistryAnswer
from registry_spooler.progress import Progress
from registry_spooler.registry.http.retry import HostPauses, RetryPolicy, retry_after_seconds
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.chunks import stored_bytes
from registry_spooler.registry.uploads.vendors import UploadOptions
from registry_spooler.registry.uploads.window import READ_AHEAD_BYTES, ChunkBudget, Window
from support.registries.faultproxy import Fault, Headers, running_proxy
from support.registries.memory_blobs import Blob, MemoryReader, noise
from support.registries.playedregistry import Behaviour, running_registry

MIB = 1 << 20


ASK, SMALLER = ["GET", "PATCH 1048576-2097151"], ["GET", "PATCH 1048576-1572863"]
STREAM, RESTART = ["DELETE", "POST", "PATCH None"], ["DELETE", "POST", "PATCH 0-1048575"]


@pytest.mark.parametrize(
    ("status", "chunk", "expected"),
    [
        (416, 1, ASK),
        (500, 1, ASK),
        (429, 0, ["GET", "PATCH 0-1048575"]),
        (413, 1, SMALLER),
        (400, 0, STREAM),
        (405, 0, STREAM),
        (411, 0, STREAM),
        (416, 0, STREAM),
        (501, 0, STREAM),
        (400, 1, RESTART),
        (404, 1, RESTART),
        (404, 0, RESTART),
    ],
)
async def test_what_follows_a_chunk_that_was_not_accepted(repository, status, chunk, expected):
    blob = Blob(noise(3 * MIB))
    async with running_registry(Behaviour(relative_location=True)) as played:
        refusal = Fault(method="PATCH", skip=chunk, answer=(status, [], b""))
        async with running_proxy(played.url.removeprefix("http://"), refusal) as proxy, _client(proxy.url) as client:
            await client.put_blob(repository, blob.opener, Progress())
            patches = [index for index, seen in enumerate(proxy.seen) if seen.method == "PATCH"]
            after = proxy.seen[patches[chunk] + 1 :][: len(expected)]
        assert played.blobs[str(blob.digest)] == blob.content
    shown = [f"PATCH {seen.headers.get('content-range')}" if seen.method == "PATCH" else seen.method for seen in after]
    assert shown == expected


@pytest.mark.parametrize(("status", "chunk"), [(403, 0), (405, 1), (401, 1)])
async def test_a_chunk_that_is_refused_for_good(repository, status, chunk):
    async with running_registry(Behaviour(relative_location=True)) as played:
        refusal = Fault(method="PATCH", skip=chunk, answer=(status, [], b""))
        async with running_proxy(played.url.removeprefix("http://"), refusal) as proxy, _client(proxy.url) as client:
            with pytest.raises(RegistryAnswer) as caught:
                await client.put_blob(repository, Blob(noise(3 * MIB)).opener, Progress())
            assert chunk + 1 == sum(seen.method == "PATCH" for seen in proxy.seen)
        assert played.sessions == {}
    assert caught.value.status == status


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("text", ["0-1048575", "bytes=0-1048575", "nonsense", None])
async def test_a_chunk_that_was_accepted_is_not_asked_for(repository, status, text):
    def rewrite(_: int, headers: Headers) -> tuple[int, Headers]:
        kept = [(name, value) for name, value in headers if name.lower() != "range"]
        return status, kept if text is None else [*kept, ("Range", text)]

    blob = Blob(noise(3 * MIB))
    async with running_registry(Behaviour(relative_location=True)) as played:
        answer = Fault(method="PATCH", rewrite=rewrite)
        async with running_proxy(played.url.removeprefix("http://"), answer) as proxy, _client(proxy.url) as client:
            await client.put_blob(repository, blob.opener, Progress())
            assert [seen.method for seen in proxy.seen] == ["POST", "PATCH", "PATCH", "PATCH", "PUT"]
        assert played.blobs[str(blob.digest)] == blob.content


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("0-99", 50, 100),
        ("0-49", 50, 50),
        ("0-74", 50, 75),
        ("0-48", 50, None),
        ("0-100", 50, None),
        ("0-0", 0, 0),
        ("0-0", 1, 1),
        ("0--1", 0, 0),
        ("bytes=0--1", 0, 0),
        ("bytes=0-60", 50, 60),
        (None, 0, None),
        ("", 0, None),
    ],
)
def test_how_much_is_stored(text, start, expected):
    assert stored_bytes(text, start, 100) == expected


@given(st.text(max_size=40), st.integers(0, 10**12), st.integers(0, 10**9))
def test_whatever_is_said_to_be_stored_is_within_the_chunk(text, start, length):
    stored = stored_bytes(text, start, start + length)
    assert stored is None or start <= stored <= start + length


def _client(url: str) -> RegistryClient:
    policy = RetryPolicy(tries=4, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01))
    return RegistryClient(url, upload_options=UploadOptions(chunk_size_bytes=MIB), retry=policy)


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999999", 300.0),
        ("Thu, 01 Jan 2026 12:00:09 GMT", 9.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thursday, 01-Jan-26 12:00:09 GMT", 9.0),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("\u0661", None),
    ],
)
def test_retry_after(text, expected):
    assert retry_after_seconds({"Retry-After": text}, NOW) == expected


def test_a_shorter_pause_does_not_end_a_longer_one():
    now = [0.0]
    pauses = HostPauses(clock=lambda: now[0])
    pauses.pause("h", 10)
    pauses.pause("h", 1)
    assert (pauses.remaining_seconds("h"), pauses.remaining_seconds("other")) == (10.0, 0.0)
    now[0] = 11.0
    assert pauses.remaining_seconds("h") == 0.0


def test_the_budget_gives_what_it_has_and_takes_it_back():
    budget = ChunkBudget(floor_bytes=6, total_bytes=20)
    assert budget.grant(0, 18, 6) == 18
    assert budget.grant(0, 20, 8) == 8  # its floor, though only 2 are left
    assert budget.grant(18, 30, 6) == 18
    assert budget.grant(18, 5, 6) == 18  # what is held is taken back by who holds it
    assert budget.taken_bytes == 26
    budget.taken_bytes -= 18 - 7
    assert budget.grant(8, 20, 8) == 13


@pytest.mark.parametrize("retains", [True, False])
@pytest.mark.parametrize("piece_bytes", [MIB, 700_001, 1000])
async def test_a_window_gives_every_byte_in_order_and_holds_few(retains, piece_bytes):
    content = noise(20 * MIB)
    budget = ChunkBudget(total_bytes=14 * MIB)
    reader = MemoryReader(content, rewindable=not retains, piece_bytes=piece_bytes)
    window = Window(reader, budget, Progress(), retains=retains)
    most, received, offset = 0, bytearray(), 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(window.feed)
        while length := await window.next_chunk(5 * MIB, 5 * MIB, 5 * MIB):
            async for piece in window.body(offset, length):
                received += piece
                most = max(most, window.held_bytes)
            offset += length
            await window.go_to(offset)
        await window.wait_for_end()
        window.close()
        tasks.cancel_scope.cancel()
    assert bytes(received) == content
    assert most <= (14 * MIB if retains else READ_AHEAD_BYTES)
    assert budget.taken_bytes == 0


async def test_a_window_goes_back():
    content = noise(12 * MIB)
    reader = MemoryReader(content)
    window = Window(reader, ChunkBudget(), Progress(), retains=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(window.feed)
        for start in (0, 3 * MIB + 17, 5):
            await window.go_to(start)
            received = b"".join([bytes(piece) async for piece in window.body(start, 4 * MIB)])
            assert received == content[start : start + 4 * MIB]
        tasks.cancel_scope.cancel()
    assert reader.rewinds[-1] == 5


@pytest.mark.parametrize("wait", [lambda window: window.wait_for(10), Window.wait_for_end])
async def test_a_reader_that_fails_ends_the_waiting(wait):
    failure = ArchiveError("broken")
    window = Window(MemoryReader(b"", fails_at=0, failure=failure), ChunkBudget(), Progress(), retains=True)
    with pytest.raises(ArchiveError) as caught:
        async with task_group() as tasks:
            tasks.start_soon(window.feed)
            await wait(window)
    assert caught.value is failure


@given(st.data())
def test_uploads_never_take_more_than_the_total_and_their_floors(data):
    budget = ChunkBudget(floor_bytes=5, total_bytes=20)
    held = [0, 0, 0]
    for _, upload in zip(range(30), itertools.cycle(range(3)), strict=False):
        wanted = data.draw(st.integers(0, 40))
        if data.draw(st.booleans()):
            held[upload] = budget.grant(held[upload], wanted, budget.floor_bytes)
            assert held[upload] <= 20
        elif wanted < held[upload]:
            budget.taken_bytes -= held[upload] - wanted
            held[upload] = wanted
        assert 0 <= budget.taken_bytes <= 20 + 2 * 5
        assert budget.taken_bytes == sum(held)
