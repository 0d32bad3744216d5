"""Decompressing what the tools compress, however it is cut; and compressing the same way always."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.archive.compression import (
    DEFLATE_BLOCK_BYTES,
    Compression,
    Deflater,
    Inflater,
    TrailingGarbage,
    sniff,
)
from registry_spooler.errors import ArchiveError, ArchiveTruncated
from registry_spooler.oci.blob import PIECE_BYTES
from support.images.archive_parts import gz, zst
from support.images.archive_reading import inflate

COMPRESS = {Compression.GZIP: gz, Compression.ZSTD: zst, Compression.XZ: lzma.compress, Compression.BZIP2: bz2.compress}
SKIPPABLE = b"\x53\x2a\x4d\x18\x04\x00\x00\x00skip"
kinds = pytest.mark.parametrize("kind", list(COMPRESS))
cuts = st.lists(st.integers(1, 5000), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("head", "kind"),
    [(compress(b"x"), kind) for kind, compress in COMPRESS.items()]
    + [(SKIPPABLE, Compression.ZSTD), (b"plain text", Compression.NONE), (b"", Compression.NONE)],
)
def test_it_is_told_by_how_it_begins(head, kind):
    assert sniff(head) is kind


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=5), st.sampled_from(list(COMPRESS)), st.integers(0, 9), cuts
)
def test_members_follow_each_other_with_zeros_between(contents, kind, zeros, sizes):
    stream = bytes(4 * zeros).join(COMPRESS[kind](content) for content in contents)
    size = itertools.cycle(sizes)
    assert inflate(stream, kind, cuts=lambda: next(size)) == b"".join(contents)


def test_thousands_of_tiny_members_are_read_in_no_time():
    assert inflate(gz(b"x" * 512) * 50_000, Compression.GZIP) == b"x" * 512 * 50_000


def test_skippable_frames_are_skipped():
    stream = SKIPPABLE + zst(b"one") + SKIPPABLE + SKIPPABLE + zst(b"two") + SKIPPABLE
    assert inflate(stream, Compression.ZSTD) == b"onetwo"


@kinds
def test_data_that_is_cut_off_says_so_at_every_byte(kind):
    stream = COMPRESS[kind](b"content " * 100)
    for end in range(6, len(stream)):
        with pytest.raises(ArchiveTruncated, match=rf"^the {kind.value} data is cut off \(byte \d+\)$"):
            inflate(stream[:end], kind)


@kinds
def test_a_cut_second_member_is_cut_off_too(kind):
    with pytest.raises(ArchiveTruncated, match="cut off"):
        inflate(COMPRESS[kind](b"one") + COMPRESS[kind](b"two")[:-1], kind)


@kinds
def test_something_else_behind_the_end_is_garbage(kind):
    stream = COMPRESS[kind](b"content")
    with pytest.raises(TrailingGarbage, match=f"^byte {len(stream)}: behind the end of the {kind.value} data"):
        inflate(stream + b"signature", kind)


def test_a_wrong_checksum_is_found():
    for stream, kind in (
        (gz(b"content")[:-8] + b"\0\0\0\0" + gz(b"content")[-4:], Compression.GZIP),
        (zstandard.ZstdCompressor(write_checksum=True).compress(b"content")[:-1] + b"\0", Compression.ZSTD),
    ):
        with pytest.raises(ArchiveError, match=f"the {kind.value} data is corrupt: its checksum is wrong"):
            inflate(stream, kind)


@kinds
@given(data=st.data())
def test_damaged_data_ends_in_an_answer(kind, data):
    stream = bytearray(COMPRESS[kind](b"some content" * 50))
    place = data.draw(st.integers(0, len(stream) - 1))
    stream[place] ^= data.draw(st.integers(1, 255))
    try:
        inflate(bytes(stream), kind)
    except ArchiveError as error:
        assert error.where.startswith("byte ")


def test_output_comes_in_bounded_pieces():
    inflater = Inflater(Compression.ZSTD)
    stream = zst(bytes(64 << 20))
    sizes = [len(inflater.inflate(stream, 1 << 20))]
    while not inflater.needs_input:
        sizes.append(len(inflater.inflate(b"", 1 << 20)))
    assert (sum(sizes), max(sizes)) == (64 << 20, 1 << 20)


def test_data_that_wants_too_much_memory_says_what_to_do():
    long_window = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    greedy = {
        Compression.ZSTD: zstandard.ZstdCompressor(compression_params=long_window)
        .compressobj()
        .compress(bytes(1 << 20)),
        Compression.XZ: lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20}]),
    }
    for kind, stream in greedy.items():
        with pytest.raises(ArchiveError, match="needs more than 64 MiB of memory"):
            inflate(stream, kind)


@pytest.mark.parametrize(
    "stream", [lzma.compress(b"x" * 1000, preset=9), lzma.compress(b"x" * 1000, preset=9 | lzma.PRESET_EXTREME)]
)
def test_the_strongest_xz_is_within_the_bounds(stream):
    assert inflate(stream, Compression.XZ) == b"x" * 1000


def deflate(content: bytes, kind: Compression) -> bytes:
    deflater = Deflater(kind)
    blocks = [content[at : at + DEFLATE_BLOCK_BYTES] for at in range(0, len(content), DEFLATE_BLOCK_BYTES)]
    return b"".join([deflater.deflate(block) for block in blocks] + [deflater.finish()])


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD])
@pytest.mark.parametrize("size", [0, 1, DEFLATE_BLOCK_BYTES - 1, DEFLATE_BLOCK_BYTES, 2 * DEFLATE_BLOCK_BYTES + 1])
def test_compressing_gives_the_same_every_time_and_can_be_read(kind, size):
    content = random.Random(size).randbytes(size // 2).ljust(size, b"\0")
    compressed = deflate(content, kind)
    assert compressed == deflate(content, kind)
    assert inflate(compressed, kind) == content


def test_gzip_holds_no_time_and_no_name():
    compressed = deflate(b"content", Compression.GZIP)
    assert compressed[3:8] == bytes(5)
    assert gzip.decompress(compressed) == b"content"


def test_blocks_of_another_size_are_refused():
    deflater = Deflater(Compression.GZIP)
    deflater.deflate(b"last")
    with pytest.raises(ValueError, match="blocks have one size"):
        deflater.deflate(b"more")
    with pytest.raises(ValueError, match="nothing is compressed with xz"):
        Deflater(Compression.XZ)


def test_a_piece_and_a_block_are_one_size():
    assert PIECE_BYTES == DEFLATE_BLOCK_BYTES
