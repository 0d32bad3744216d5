"""What an archive may cost: memory and time, however large or hostile it is."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import anyio
import pytest
import zstandard
from isal import isal_zlib

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import Expectation
from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.source import FileSource
from support.images.archive_parts import COMPRESSORS, big_layer, digest, dumps, make_tar
from support.images.archive_reading import opened, read_archive

GIB = 1 << 30
MEMORY_MAX_BYTES = 80 << 20
"""For the whole process: the interpreter with what it imports takes 35 MB of it."""

READ_AND_TELL = """
import asyncio, re, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support.images.archive_reading import read_archive
from registry_spooler.archive.compression import Compression
read = asyncio.run(read_archive(Path(sys.argv[2]), compression=Compression(sys.argv[3])))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
for path, measured in read.files.items():
    print(path, measured.size)
"""


def read_in_a_process(path: Path, compression: Compression = Compression.NONE) -> tuple[int, dict[str, int]]:
    """The most memory that a process took to read an archive, and its files with their sizes; in bytes."""
    command = [sys.executable, "-c", READ_AND_TELL, str(Path(__file__).parents[1]), str(path), compression.value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    memory, *files = done.stdout.splitlines()
    return int(memory), {path: int(size) for path, size in (line.split() for line in files)}


def gzip_member(content: bytes) -> bytes:
    deflater = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    return deflater.compress(content) + deflater.flush()


def tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def documents() -> bytes:
    """The end of a docker archive with one layer."""
    config = dumps({"rootfs": {"type": "layers", "diff_ids": [str(digest(b"whatever"))]}})
    items = [{"Config": "config.json", "RepoTags": ["big:1"], "Layers": ["layer.tar"]}]
    return make_tar([("config.json", config), ("manifest.json", dumps(items))])


@pytest.mark.timeout(300)  # 10 s on an idle machine
def test_a_layer_of_nine_gibibytes_in_a_small_tgz(tmp_path):
    zeros = gzip_member(bytes(64 << 20))
    path = tmp_path / "big.tgz"
    path.write_bytes(gzip_member(tar_header("layer.tar", 9 * GIB)) + zeros * (9 * GIB >> 26) + gzip_member(documents()))
    assert path.stat().st_size < 64 << 20
    memory, files = read_in_a_process(path)
    assert files == {"layer.tar": 9 * GIB}
    assert memory < MEMORY_MAX_BYTES


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.zst"])
def test_compressing_a_large_layer(tmp_path, suffix):
    path = tmp_path / f"large{suffix}"
    layer = big_layer(16 << 20)
    path.write_bytes(COMPRESSORS[suffix](tar_header("layer.tar", 8 * len(layer)) + layer * 8 + documents()))
    memory, files = read_in_a_process(path, Compression.GZIP)
    assert 50 << 20 < files["layer.tar"] < 100 << 20
    assert memory < MEMORY_MAX_BYTES


def test_a_layer_that_is_itself_a_bomb(tmp_path):
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(2 * GIB))
    assert len(bomb) < 1 << 20
    path = tmp_path / "bomb.tar"
    path.write_bytes(tar_header("layer.tar", len(bomb)) + bomb + bytes(-len(bomb) % 512) + documents())
    memory, _ = read_in_a_process(path)
    assert memory < MEMORY_MAX_BYTES


async def test_a_bomb_can_be_given_up(tmp_path):
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(2 * GIB))
    async with opened(make_tar([("layer.tar", bomb)]), tmp_path) as archive:
        (member,) = archive._contents
        with anyio.CancelScope() as scope:
            async with archive.blob(member, expect=Expectation(diff_id=digest(b"")))() as reader:
                await reader.read()
                scope.cancel()
                await reader.read()
        assert scope.cancelled_caught
        inflated = reader._codec._inner.size
        assert 0 < inflated <= 128 << 20


@pytest.mark.parametrize("claim", [9 * GIB, 1 << 60])
@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("name", ["layer.tar", "manifest.json"])
async def test_a_claimed_size_costs_nothing(tmp_path, claim, suffix, name):
    (tmp_path / "claim").write_bytes(COMPRESSORS[suffix](tar_header(name, claim) + b"{}".ljust(512)))
    with pytest.raises(Exception, match=rf"the archive ends .*\({name}\)") as caught:
        await read_archive(tmp_path / "claim")
    assert caught.value.incomplete


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_a_hundred_thousand_small_members(tmp_path, suffix):
    members = b"".join(tar_header(f"usr/share/{at}", 3) + b"abc".ljust(512) for at in range(50_000))
    folders = b"".join(tar_header(f"usr/lib/{at}", 0) for at in range(50_000 - 2))
    path = tmp_path / "many"
    content = members + folders + documents()
    path.write_bytes(content if suffix == ".tar" else gzip_member(content))
    async with FileSource.open(path) as source, open_archive(source) as archive:
        if suffix == ".tgz":
            async for _ in archive.members():
                if archive.is_document:
                    await archive.keep()
        (image,) = await archive.images()
    assert str(image) == "big:1"


async def test_zeros_without_end_behind_the_end(tmp_path):
    path = tmp_path / "sparse.tar"
    with path.open("wb") as file:
        file.write(documents())
        file.truncate(100 * GIB)
    async with FileSource.open(path) as source, open_archive(source) as archive:
        (image,) = await archive.images()
    assert str(image) == "big:1"
