"""Thin archives, limits, standard error: plain code."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncGenerator

import anyio
import pytest

from registry_spooler.kubernetes.redial import STEP_BYTES, RateLimit
from registry_spooler.kubernetes.remote_session import Input
from registry_spooler.kubernetes.transfer.thin_archive import ArchivePart, content_part, image_parts, pack
from registry_spooler.kubernetes.wire import LastWord, RemoteFailure, StderrReader
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.layout_writer import blob_path, tar_header
from registry_spooler.oci.manifest import Manifest

MANIFEST = Manifest.parse(json.dumps({"schemaVersion": 2, "layers": []}).encode())


async def joined(packed: Input) -> bytes:
    return b"".join([bytes(piece) async for piece in packed.pieces])


async def pieces(*content: bytes) -> AsyncGenerator[bytes]:
    for piece in content:
        yield piece


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (511, 512, 513), (100_000,)])
async def test_the_length_is_known_before_the_first_byte(sizes: tuple[int, ...]) -> None:
    contents = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    packed = pack([content_part(blob_path(Digest.of(content)), content) for content in contents])
    archive = await joined(packed)
    assert packed.size == len(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert contents == [tar.extractfile(member).read() for member in tar]


def test_a_member_of_more_than_eight_gibibytes() -> None:
    part = ArchivePart("blobs/sha256/x", 9 << 30, lambda: pieces(b""))
    assert 9 << 30 == tarfile.TarInfo.frombuf(tar_header(part.path, part.size), "utf-8", "strict").size


async def test_what_is_shorter_than_announced_does_not_pass() -> None:
    with pytest.raises(RuntimeError, match="was announced with 5"):
        await joined(pack([ArchivePart("x", 5, lambda: pieces(b"1234"))]))


async def test_an_image_begins_with_its_index() -> None:
    archive = await joined(pack(image_parts(MANIFEST, "v1", manifests=(), companions={}, blobs=())))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert ["oci-layout", "index.json", blob_path(MANIFEST.digest)] == tar.getnames()
        (entry,) = json.load(tar.extractfile("index.json"))["manifests"]
    assert str(MANIFEST.digest) == entry["digest"]
    assert {"org.opencontainers.image.ref.name": "v1"} == entry["annotations"]


def test_standard_error_in_pieces() -> None:
    reader = StderrReader()
    reader.feed(b'{"alive": true}\nplain wo')
    reader.feed(b'rds\n{"progress": {"bytes_sent": 5}}\n{"error": "no", "ki')
    reader.feed(b'nd": "X"}')
    reader.close()
    assert (["plain words"], RemoteFailure(sentence="no", kind="X")) == (reader.plain, reader.error)
    assert reader.last_word is None
    assert reader.is_over(0)


def test_the_last_word() -> None:
    reader = StderrReader()
    reader.feed(b'{"done": true, "stdout_bytes": 7, "code": 3}\n')
    assert LastWord(code=3, stdout_bytes=7) == reader.last_word
    assert [False, True] == [reader.is_over(size) for size in (6, 7)]


@pytest.mark.parametrize(
    "line", [b'{"done": 1}', b'{"done": true}', b'{"done": true, "stdout_bytes": "7", "code": 0}', b'{"done": false}']
)
def test_what_is_no_last_word(line: bytes) -> None:
    reader = StderrReader()
    reader.feed(line + b"\n")
    assert reader.last_word is None


@pytest.mark.parametrize("code", [b"null", b'"0"', b"-1", b"256", b"[0]", b"1.5"])
def test_a_code_that_is_none_is_a_failure(code: bytes) -> None:
    reader = StderrReader()
    reader.feed(b'{"done": true, "stdout_bytes": 0, "code": ' + code + b"}\n")
    assert LastWord(code=1, stdout_bytes=0) == reader.last_word


def test_endless_standard_error_is_bounded() -> None:
    reader = StderrReader()
    for _ in range(100):
        reader.feed(b"x" * 100_000)
    for _ in range(1000):
        reader.feed(b"line\n")
    reader.close()
    assert 5 == len(reader.plain)


async def test_a_rate_is_shared() -> None:
    limit = RateLimit(20 * STEP_BYTES)
    started = anyio.current_time()

    async def use() -> None:
        sent = [bytes(piece) async for piece in limit.limited(pieces(bytes(4 * STEP_BYTES), b"rest"))]
        assert 4 * STEP_BYTES + 4 == sum(len(piece) for piece in sent)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        tasks.start_soon(use)
    assert 0.35 < anyio.current_time() - started < 5
