"""Tars that are made to hurt: refused in a sentence, after little has been read of them, in bounded memory."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import zstandard

from registry_spooler.archive.compression import Inflater, window_bytes
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.source import FileSource
from registry_spooler.errors import ArchiveError
from support.images import archives, hostile
from support.images.archive_parts import COMPRESSORS, make_tar
from support.images.archive_reading import opened, read_archive

MIB = 1 << 20
GIB = 1 << 30
MEMORY_MAX_BYTES = 112 * MIB
"""For the whole process: the interpreter with what it imports takes 35 MB of it."""

READ_AND_TELL = """
import asyncio, re, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support.images.archive_reading import read_archive
from registry_spooler.errors import ArchiveError
try:
    asyncio.run(read_archive(Path(sys.argv[2])))
    print("read")
except ArchiveError as error:
    print(error)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def read_in_a_process(path: Path) -> tuple[str, int]:
    """What is said of an archive, and the most memory that it took to find out, in bytes."""
    command = [sys.executable, "-c", READ_AND_TELL, str(Path(__file__).parents[1]), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    sentence, memory = done.stdout.splitlines()
    return sentence, int(memory)


NAMES = "the names of its members take more than 16 MiB, as in no image archive"
EXTENSIONS = "its extended headers have more than 32 MiB"


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (hostile.endless_names, NAMES),
        (hostile.deep_folders, NAMES),
        (hostile.names_that_are_no_text, NAMES),
        (hostile.long_names_without_end, EXTENSIONS),
        (hostile.records_without_end, "it has more than 1,000,000 PAX records"),
        (hostile.a_sparse_map_without_end, EXTENSIONS),
        (hostile.many_indexes, "it has no index of images at its top"),
        (hostile.links_in_a_circle, "l0: its links lead in a circle"),
        (lambda: hostile.with_index(hostile.many_values(2_000_000)), "index.json: its JSON has more than"),
        (lambda: hostile.with_index(hostile.many_values(240_000, b'{"a":[]}')), "index.json: its JSON has more"),
        (hostile.one_config_for_many_images, "read"),
        (hostile.many_names_for_one_image, "read"),
    ],
)
def test_it_costs_little_and_is_told_in_a_sentence(tmp_path, suffix, make, sentence):
    path = tmp_path / f"hostile{suffix}"
    path.write_bytes(bytes(make()) if suffix == ".tar" else hostile.packed(make()))
    told, memory = read_in_a_process(path)
    assert sentence in told
    assert len(told) < 600
    assert memory < MEMORY_MAX_BYTES, f"{memory / MIB:.0f} MiB"


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_a_label_that_claims_a_tebibyte(tmp_path, suffix):
    (tmp_path / "label").write_bytes(COMPRESSORS[suffix](hostile.labels_without_end(1 << 40)))
    with pytest.raises(ArchiveError, match=EXTENSIONS):
        await read_archive(tmp_path / "label")


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_deep_folders_that_are_few(tmp_path, suffix):
    """The folder that all files share is found as they come, at whatever depth."""
    folder = "d/" * 1500
    members = [(folder + path, content) for path, content in archives.read_tar(archives.podman_docker()).items()]
    path = tmp_path / "deep"
    path.write_bytes(COMPRESSORS[suffix](make_tar(members)))
    assert len((await read_archive(path)).images) == 1


@pytest.mark.parametrize(
    ("paths", "root"),
    [
        (["a/b/index.json", "a/b/blobs/x"], "a/b/"),
        (["a/b/index.json", "a/c"], ""),
        (["a/b/blobs/x", "a/b/index.json", "a/bc/x"], ""),
        (["ab/index.json", "abc/x"], ""),
        (["a/index.json", "index.json"], ""),
        (["a/index.json", "../x"], ""),
        (["../x", "a/index.json"], ""),
        (["../a/index.json", "../a/x"], ""),
        (["a/index.json", "a/b/c/d", "._a", "a/b"], "a/"),
        (["a/x", "a/y"], ""),
    ],
)
def test_the_folder_that_all_files_share(paths, root):
    contents = Contents()
    for member in hostile.members_of(make_tar([(path, b"") for path in paths])):
        contents.add(member)
    assert contents.root == root


@pytest.fixture
def inflated(monkeypatch):
    """How many times a piece has been inflated, by now."""
    calls: list[int] = []
    real = Inflater.inflate

    def counting(self: Inflater, data: bytes, max_bytes: int) -> bytes:
        output = real(self, data, max_bytes)
        calls.append(len(output))
        return output

    monkeypatch.setattr(Inflater, "inflate", counting)
    return calls


KINDS = sorted(hostile.COMPRESS)


@pytest.mark.parametrize("kind", KINDS)
async def test_zeros_without_end_behind_the_end(tmp_path, kind, inflated):
    path = tmp_path / "zeros"
    path.write_bytes(hostile.COMPRESS[kind](archives.podman_docker()) + hostile.zeros(kind, 512 * MIB))
    with pytest.raises(ArchiveError, match="more than 256 MiB follow the end of the tar archive"):
        await read_archive(path)
    assert sum(inflated) < 1.5 * 256 * MIB


@pytest.mark.parametrize("kind", KINDS)
async def test_zeros_before_the_first_header(tmp_path, kind, inflated):
    path = tmp_path / "zeros"
    path.write_bytes(hostile.zeros(kind, 512 * MIB))
    with pytest.raises(ArchiveError, match="more than 256 MiB follow the end of the tar archive"):
        await read_archive(path)
    assert sum(inflated) < 1.5 * 256 * MIB


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begin", [b"", hostile.header("layer.tar", 1 << 60), hostile.labels_without_end(30 * MIB)])
async def test_zeros_can_be_given_up(tmp_path, kind, begin, inflated):
    """Wherever the zeros are, a cancellation is obeyed within some pieces of output of hundreds."""
    path = tmp_path / "zeros"
    path.write_bytes(hostile.COMPRESS[kind](begin) + hostile.zeros(kind, 256 * MIB))
    async with FileSource.open(path) as source, anyio.create_task_group() as tasks:

        async def read() -> None:
            async with open_archive(source) as archive:
                async for _ in archive.members():
                    pass

        tasks.start_soon(read)
        while len(inflated) < 3:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
        before = len(inflated)
    assert len(inflated) <= before + 50


@pytest.mark.parametrize("content", [b"", b"a"])
async def test_many_members_that_hold_nothing(tmp_path, content, inflated):
    path = tmp_path / "crumbs.tgz"
    path.write_bytes(hostile.packed(archives.podman_docker()) + hostile.packed(content) * 100_000)
    with pytest.raises(ArchiveError, match="10,000 parts of its gzip data, one behind the other, hold next"):
        await read_archive(path)
    assert len(inflated) < 60_000


async def test_zeros_between_members(tmp_path, inflated):
    path = tmp_path / "gap.tgz"
    whole = archives.podman_docker()
    with path.open("wb") as file:
        file.write(hostile.packed(whole[:2048]))
        file.seek(GIB, 1)
        file.write(hostile.packed(whole[2048:]))
    with pytest.raises(ArchiveError, match="64 MiB of its gzip data hold nothing"):
        await read_archive(path)


async def test_zeros_without_end_behind_the_compressed_data(tmp_path):
    path = tmp_path / "tail.tgz"
    with path.open("wb") as file:
        file.write(hostile.packed(archives.podman_docker()))
        file.truncate(100 * GIB)
    with pytest.raises(ArchiveError, match="64 MiB of its gzip data hold nothing"):
        await read_archive(path)


async def test_a_frame_to_be_skipped_of_four_gibibytes(tmp_path):
    path = tmp_path / "skip.tar.zst"
    with path.open("wb") as file:
        file.write(b"\x50\x2a\x4d\x18" + (0xFFFFFFFF).to_bytes(4, "little"))
        file.truncate(4 * GIB)
    with pytest.raises(ArchiveError, match="64 MiB of its zstd data hold nothing"):
        await read_archive(path)


async def test_many_documents_that_look_worth_keeping(tmp_path):
    async with opened(hostile.packed(hostile.many_indexes()), tmp_path) as archive:
        async for _ in archive.members():
            if archive.is_document:
                await archive.keep()
        assert archive._contents._kept_bytes <= 24 * MIB


def zstd_of_window(log: int, content: bytes) -> bytes:
    """As from a pipe: the frame does not tell its size, and so claims the whole window."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(content) + compressor.flush()


def windows() -> dict[str, tuple[bytes, int]]:
    """Compressed tars, and the window that they claim."""
    content = archives.podman_docker()
    return {
        "xz -6": (lzma.compress(content), 8 * MIB),
        "xz -9": (lzma.compress(content, preset=9), 64 * MIB),
        "zstd 20": (zstd_of_window(20, content), MIB),
        "zstd 26": (zstd_of_window(26, content), 64 * MIB),
        "zstd of one segment": (zstandard.ZstdCompressor().compress(content), len(content)),
        "zstd, skippable": (b"\x50\x2a\x4d\x18\0\0\0\0" + zstd_of_window(20, content), 64 * MIB),
        "gzip": (hostile.packed(content), 0),
        "cut off": (lzma.compress(content)[:14], 0),
    }


@pytest.mark.parametrize("name", windows())
def test_the_window_that_an_archive_claims(name):
    content, expected = windows()[name]
    assert window_bytes(content[:512]) == expected


async def test_archives_with_large_windows_take_turns(tmp_path):
    """Each is read, one after the other, and those with usual ones beside them."""
    for name, (content, _) in windows().items():
        (tmp_path / name).write_bytes(content)
    opened_wide = 0

    async def read(name: str, expected: int) -> None:
        nonlocal opened_wide
        async with FileSource.open(tmp_path / name) as source, open_archive(source) as archive:
            opened_wide += expected
            assert opened_wide <= 1
            async for _ in archive.members():
                await anyio.lowlevel.checkpoint()
            async with open_archive(source) as again:  # the same file's further pass has its turn already
                async for _ in again.members():
                    pass
            opened_wide -= expected

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for name in ("xz -9", "zstd 26", "zstd, skippable"):
                tasks.start_soon(read, name, 1)
            for name in ("xz -6", "zstd 20", "gzip"):
                tasks.start_soon(read, name, 0)


async def test_a_large_window_behind_a_small_one_is_refused(tmp_path):
    path = tmp_path / "two.tar.zst"
    path.write_bytes(windows()["zstd 20"][0] + windows()["zstd 26"][0])
    with pytest.raises(ArchiveError, match="needs more than 8 MiB of memory to decompress"):
        await read_archive(path)
