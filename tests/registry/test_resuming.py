"""How an upload goes on, from numbers alone; and the window and the budget that it goes on with."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.errors import ArchiveError
from registry_spooler.progress import Progress
from registry_spooler.registry.http.retry import HostPauses, retry_after_seconds
from registry_spooler.registry.uploads.chunks import Next, after_chunk, stored_bytes
from registry_spooler.registry.uploads.window import READ_AHEAD_BYTES, ChunkBudget, Window
from support.registries.memory_blobs import MemoryReader, noise

MIB = 1 << 20


@pytest.mark.parametrize(
    ("status", "text", "start", "expected"),
    [
        (202, "0-99", 0, Next.GO_ON),
        (201, "0-99", 0, Next.GO_ON),
        (204, None, 0, Next.GO_ON),
        (202, "bytes=0-99", 0, Next.GO_ON),
        (202, "nonsense", 0, Next.GO_ON),
        (202, "0-49", 0, Next.ASK),
        (416, None, 50, Next.ASK),
        (500, None, 50, Next.ASK),
        (429, None, 0, Next.ASK),
        (401, None, 50, Next.LOG_IN),
        (413, None, 50, Next.SMALLER),
        (400, None, 0, Next.STREAM),
        (405, None, 0, Next.STREAM),
        (411, None, 0, Next.STREAM),
        (416, None, 0, Next.STREAM),
        (501, None, 0, Next.STREAM),
        (400, None, 50, Next.RESTART),
        (404, None, 50, Next.RESTART),
        (404, None, 0, Next.RESTART),
        (403, None, 0, Next.FAIL),
        (405, None, 50, Next.FAIL),
    ],
)
def test_after_a_chunk(status, text, start, expected):
    assert after_chunk(status, text, start, 100, ranged=True, trusts_range=True) is expected


def test_a_range_that_is_not_trusted():
    assert after_chunk(202, "0-0", 50, 100, ranged=True, trusts_range=False) is Next.GO_ON


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
    one, other = budget.share(), budget.share()
    other.floor_bytes = 8
    assert one.stretch(18) == 18
    assert other.stretch(20) == 8  # its floor, though only 2 are left
    assert one.stretch(30) == 18
    assert budget.taken_bytes == 26
    one.settle(7)
    assert budget.taken_bytes == 15
    assert other.stretch(20) == 13
    other.settle(0)
    one.settle(0)
    assert budget.taken_bytes == 0


@pytest.mark.parametrize("retains", [True, False])
@pytest.mark.parametrize("piece_bytes", [MIB, 700_001, 1000])
async def test_a_window_gives_every_byte_in_order_and_holds_few(retains, piece_bytes):
    content = noise(20 * MIB)
    budget = ChunkBudget(total_bytes=14 * MIB)
    reader = MemoryReader(content, rewindable=not retains, piece_bytes=piece_bytes)
    window = Window(reader, budget.share(), Progress(), retains=retains)
    most, received, offset = 0, bytearray(), 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(window.feed)
        while length := window.reserve(min(5 * MIB, len(content) - offset)):
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
    window = Window(reader, ChunkBudget().share(), Progress(), retains=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(window.feed)
        for start in (0, 3 * MIB + 17, 5):
            await window.go_to(start)
            received = b"".join([bytes(piece) async for piece in window.body(start, 4 * MIB)])
            assert received == content[start : start + 4 * MIB]
        tasks.cancel_scope.cancel()
    assert reader.rewinds[-1] == 5


async def test_a_reader_that_fails_ends_the_waiting():
    failure = ArchiveError("broken")
    window = Window(MemoryReader(b"", fails_at=0, failure=failure), ChunkBudget().share(), Progress(), retains=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(window.feed)
        for waiting in (window.wait_for(10), window.wait_for_end()):
            with pytest.raises(ArchiveError) as caught:
                await waiting
            assert caught.value is failure
        tasks.cancel_scope.cancel()


@given(st.data())
def test_shares_never_take_more_than_the_total_and_their_floors(data):
    budget = ChunkBudget(floor_bytes=5, total_bytes=20)
    shares = [budget.share() for _ in range(3)]
    for _, share in zip(range(30), itertools.cycle(shares), strict=False):
        wanted = data.draw(st.integers(0, 40))
        if data.draw(st.booleans()):
            assert share.stretch(wanted) <= 20
        else:
            share.settle(wanted)
        assert 0 <= budget.taken_bytes <= 20 + 2 * 5
        assert budget.taken_bytes == sum(share.taken_bytes for share in shares)
