"""The window's room changes behind its back, since all uploads share one budget: nobody may sleep through that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from registry_spooler.oci.blob import PIECE_BYTES, Measured
from registry_spooler.progress import Progress
from registry_spooler.registry.uploads.window import ChunkBudget, Window

FLOOR_PIECES = 2
TOTAL_PIECES = 6


class EndlessPieces:
    rewindable = False

    def __init__(self, size: int | None) -> None:
        self.size = size

    @property
    def measured(self) -> Measured:
        raise RuntimeError("it never ends")

    async def read(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        return bytes(PIECE_BYTES)

    async def rewind(self, offset: int) -> None:
        raise AssertionError(f"nobody asks for byte {offset} again")


@asynccontextmanager
async def full_window(budget: ChunkBudget, size: int | None = None) -> AsyncIterator[Window]:
    """A window that has filled its floor and rests, while another upload has all there is."""
    budget.grant(0, budget.total_bytes, budget.floor_bytes)
    window = Window(EndlessPieces(size), budget, Progress(), retains=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(window.feed)
        await window.wait_for(FLOOR_PIECES * PIECE_BYTES)
        await anyio.wait_all_tasks_blocked()
        yield window
        tasks.cancel_scope.cancel()


@pytest.fixture
def budget() -> ChunkBudget:
    return ChunkBudget(floor_bytes=FLOOR_PIECES * PIECE_BYTES, total_bytes=TOTAL_PIECES * PIECE_BYTES)


async def test_a_window_without_room_does_not_wait_for_more(budget: ChunkBudget) -> None:
    async with full_window(budget) as window:
        with anyio.fail_after(5):
            await window.wait_for(4 * PIECE_BYTES)
        assert FLOOR_PIECES * PIECE_BYTES == window.held_bytes


async def test_what_another_upload_gives_back_is_used_by_a_window_that_rests(budget: ChunkBudget) -> None:
    async with full_window(budget) as window:
        budget.taken_bytes -= budget.total_bytes
        with anyio.fail_after(5):
            await window.wait_for(4 * PIECE_BYTES)
        assert window.held_bytes >= 4 * PIECE_BYTES


async def test_a_chunk_whose_length_was_reserved_is_filled(budget: ChunkBudget) -> None:
    async with full_window(budget, size=100 * PIECE_BYTES) as window:
        budget.taken_bytes -= budget.total_bytes
        length = await window.next_chunk(PIECE_BYTES, 4 * PIECE_BYTES, 4 * PIECE_BYTES)
        assert 4 * PIECE_BYTES == length
        with anyio.fail_after(5):
            assert await anext(window.body(3 * PIECE_BYTES, PIECE_BYTES))
