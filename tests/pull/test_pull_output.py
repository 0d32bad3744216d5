"""Where a pull writes to: files that appear when they are complete, pipes whose reader may go."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import anyio
import pytest

from registry_spooler.pull.output import Output, OutputClosed, OutputFailed, output_file


async def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "app.tar"
    async with output_file(target) as output:
        await output.write(b"half ")
        (partial,) = tmp_path.iterdir()
        assert partial.name.startswith(".app.tar.")
        assert partial.name.endswith("~")  # in a spool directory, a file that is being written
        await output.write(memoryview(b"and half"))

    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"half and half"
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~current_umask()


async def test_a_pull_that_fails_leaves_the_older_file(tmp_path):
    target = tmp_path / "app.tar"
    target.write_bytes(b"older")
    with pytest.raises(ValueError, match="digest"):
        await write_and_fail(target)

    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"older"


async def write_and_fail(target: Path) -> None:
    async with output_file(target) as output:
        await output.write(b"newer")
        raise ValueError("a wrong digest")


async def test_a_cancelled_pull_leaves_nothing(tmp_path):
    with anyio.CancelScope() as scope:
        async with output_file(tmp_path / "app.tar") as output:
            await output.write(b"some")
            scope.cancel()
            await output.write(b"more")

    assert list(tmp_path.iterdir()) == []


async def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.tar").symlink_to("target.tar")
    async with output_file(tmp_path / "link.tar") as output:
        await output.write(b"content")

    assert (tmp_path / "link.tar").is_symlink()
    assert (tmp_path / "target.tar").read_bytes() == b"content"


async def test_what_is_no_file_is_written_as_it_is():
    async with output_file(Path("/dev/null")) as output:
        await output.write(b"nothing")

    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(("path", "reason"), [("no/app.tar", "No such file"), (".", "Is a directory")])
async def test_where_nothing_can_be_written(tmp_path, path, reason):
    with pytest.raises(OutputFailed, match=reason):
        async with output_file(tmp_path / path):
            pass


async def test_a_full_disk_is_an_error_of_ours():
    async with output_file(Path("/dev/full")) as output:
        with pytest.raises(OutputFailed, match="No space left"):
            await output.write(b"x")


async def test_a_reader_that_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(OutputClosed):
            await Output(writer, "a pipe").write(b"x")
    finally:
        os.close(writer)


async def test_a_reader_that_takes_its_time_does_not_hold_up_a_cancellation():
    reader, writer = os.pipe()
    begun = threading.Event()
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(Output(writer, "a pipe").write, bytes(1 << 20))
            await anyio.to_thread.run_sync(first_byte, reader, begun)
            scope.cancel()

    assert begun.is_set()
    with os.fdopen(reader, "rb") as rest:  # the write that was left behind ends once somebody reads
        assert len(rest.read((1 << 20) - 1)) == (1 << 20) - 1
    os.close(writer)


def first_byte(reader: int, begun: threading.Event) -> None:
    assert os.read(reader, 1) == b"\0"
    begun.set()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
