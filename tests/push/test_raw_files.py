"""A file that is no archive becomes an image of one gzip layer that holds its bytes."""

from __future__ import annotations

import gzip
import os

import pytest

from registry_spooler.archive.source import FileSource
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.push.pusher import Pusher
from support.programs.desk import Desk
from support.registries.verify import Reader


@pytest.mark.parametrize("size", [0, 1, 10_000, 3_000_000])
async def test_its_bytes_come_back(size: int, desk: Desk, reader: Reader, repository: str) -> None:
    path = desk.folder / "hello.txt"
    path.write_bytes(os.urandom(size // 2) + bytes(size - size // 2))
    result = await desk.push_file(path, repository)
    image = reader.image(repository)
    (only,) = image.layers
    assert image.digest == str(result.digest)
    assert reader.unpacked(repository, only) == path.read_bytes()
    assert only.media_type == "application/gzip"  # not a tar
    assert image.manifest["annotations"] == {"org.opencontainers.image.title": "hello.txt"}
    assert result.size_bytes == len(image.content) + image.manifest["config"]["size"] + only.size


async def test_its_progress_shows_while_it_is_read(
    desk: Desk, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, progress, seen = desk.folder / "data.bin", Progress(), list[tuple[int, int]]()
    path.write_bytes(os.urandom(8 << 20))
    read_at = FileSource.read_at

    def note(source: FileSource, position: int, count: int) -> bytes:
        seen.append((progress.bytes_done, progress.bytes_read))
        return read_at(source, position, count)

    monkeypatch.setattr(FileSource, "read_at", note)
    async with FileSource.open(path) as source:
        await Pusher(desk.registry, desk.known).push_file(source, Reference(repository, "latest"), progress)
    assert sorted(seen) == seen
    assert len(set(seen)) > 3
    assert (progress.bytes_done, progress.bytes_read) == (8 << 20, 8 << 20)


async def test_the_same_file_has_the_same_digest(desk: Desk, repository: str) -> None:
    path = desk.folder / "data.bin"
    path.write_bytes(bytes(range(256)) * 20_000)
    first = await desk.push_file(path, f"{repository}:one")
    os.utime(path, (1, 1))
    assert (await desk.push_file(path, f"{repository}:two")).digest == first.digest


async def test_an_archive_without_the_suffix_is_a_file_like_any_other(
    desk: Desk, reader: Reader, repository: str
) -> None:
    path = desk.folder / "backup"
    path.write_bytes(gzip.compress(b"anything", mtime=0))
    await desk.push_file(path, repository)
    (only,) = reader.image(repository).layers
    assert gzip.decompress(reader.unpacked(repository, only)) == b"anything"
