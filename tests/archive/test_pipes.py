"""Archives that come through a pipe: read once, and given up at once when that is wanted."""

from __future__ import annotations

import os
import threading

import anyio
import pytest

from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.source import PipeFeed, PipeSource
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar_header import Kind
from registry_spooler.errors import ArchiveError, ArchiveTruncated, SourceUnreadable
from support.images import archives
from support.images.archive_parts import COMPRESSORS, big_layer, digest, gz, layer, make_tar
from support.images.archive_reading import Pipe, drain


def write(pipe: Pipe, content: bytes) -> threading.Thread:
    """Write to a pipe from a thread, and close it."""

    def run() -> None:
        with open(pipe.write_fd, "wb", closefd=False) as file:
            file.write(content)
        pipe.close_writer()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.zst"])
async def test_it_is_read_as_a_stream(suffix):
    big = big_layer(3 << 20)
    archive_bytes = make_tar([("big", big), ("link", b"small")])
    with Pipe() as pipe:
        writer = write(pipe, COMPRESSORS[suffix](archive_bytes))
        async with open_archive(PipeSource(pipe.read_fd, name="-")) as archive:
            assert isinstance(archive, StreamedArchive)
            assert not archive.rereadable
            found = [(m.path, (await drain(archive.blob()))[1].digest) async for m in archive.members()]
        writer.join()
    assert found == [("big", digest(big)), ("link", digest(b"small"))]


async def test_images_come_through_a_pipe():
    with Pipe() as pipe:
        writer = write(pipe, archives.docker_legacy())
        async with open_archive(PipeSource(pipe.read_fd, name="-")) as archive:
            async for member in archive.members():
                if member.kind is Kind.FILE and archive.is_document:
                    await archive.keep()
            (image,) = await archive.images()
        writer.join()
    assert str(image) == "registry.example/app:1"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "it is empty"), (b"hello", "it ends after 5 bytes, too few for a tar archive")],
)
async def test_nothing_and_too_little(content, sentence):
    with Pipe() as pipe:
        writer = write(pipe, content)
        with pytest.raises(ArchiveTruncated) as caught:
            async with open_archive(PipeSource(pipe.read_fd, name="-")) as archive:
                async for _ in archive.members():
                    pass
        writer.join()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("begin", [b"", gz(make_tar([("a", layer())]))[:40]], ids=["nothing came", "something came"])
async def test_a_reader_that_waits_is_given_up_at_once(begin):
    with Pipe() as pipe:
        os.write(pipe.write_fd, begin)
        with anyio.move_on_after(0.1) as scope:
            async with open_archive(PipeSource(pipe.read_fd, name="-")) as archive:
                await anext(archive.members())
        assert scope.cancelled_caught


async def test_an_error_of_the_consumer_comes_out_as_it_is():
    with Pipe() as pipe, pytest.raises(ZeroDivisionError):
        async with open_archive(PipeSource(pipe.read_fd, name="-")):
            raise ZeroDivisionError


async def test_a_consumer_that_stops_early_leaves_the_rest():
    with Pipe() as pipe:
        writer = write(pipe, make_tar([("a", b"a"), ("b", b"b")]))
        async with open_archive(PipeSource(pipe.read_fd, name="-")) as archive:
            first = await anext(archive.members())
        writer.join()
    assert first.path == "a"


async def test_garbage_in_a_pipe():
    with Pipe() as pipe:
        writer = write(pipe, b"once upon a time" * 100)
        with pytest.raises(ArchiveError, match="no tar archive"):
            async with open_archive(PipeSource(pipe.read_fd, name="-")) as archive:
                await anext(archive.members())
        writer.join()


def test_a_pipe_is_waited_for_as_long_as_was_said() -> None:
    reader, writer = os.pipe()
    source = PipeSource(reader, name="pipe", left_bytes=3)
    feed = PipeFeed(source)
    os.write(writer, b"ab")
    assert b"ab" == feed.read(10)
    source.patience_seconds = 0.01
    with pytest.raises(SourceUnreadable, match="nothing came for"):
        feed.read(10)
    os.close(writer)
    with pytest.raises(SourceUnreadable, match="it ended too early"):
        feed.read(10)
    feed.close()
    os.close(reader)
