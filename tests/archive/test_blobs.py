"""Members as blobs: hashed, compressed and checked on their way out."""

from __future__ import annotations

import asyncio
import hashlib
import lzma

import pytest

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.member_blob import Expectation, file_blob
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.tar_header import Kind, Member
from registry_spooler.errors import ArchiveError, SourceChanged
from registry_spooler.oci.blob import PIECE_BYTES, Measured
from registry_spooler.oci.digest import Digest
from support.images import archives
from support.images.archive_parts import COMPRESSORS, Image, big_layer, digest, gz, layer, make_tar, zst
from support.images.archive_reading import drain, inflate, opened, read_archive

BIG = big_layer(3 * PIECE_BYTES + 12345)
SETTINGS = [Compression.GZIP, Compression.ZSTD]


@pytest.fixture
def only_member(tmp_path):
    """The only member of an archive with this content, in the plain tar or in the stream."""

    async def read(content: bytes, suffix: str = ".tar", **how):
        packed = COMPRESSORS[suffix](make_tar([("some/blob", content)]))
        async with opened(packed, tmp_path) as archive:
            if suffix == ".tar":
                (member,) = archive._contents
                return await drain(archive.blob(member, **how))
            members = archive.members()
            await anext(members)
            return await drain(archive.blob(**how))

    return read


both = pytest.mark.parametrize("suffix", [".tar", ".tgz"])


@both
@pytest.mark.parametrize("content", [b"", b"small", BIG], ids=["empty", "small", "big"])
async def test_as_it_is(only_member, content, suffix):
    wire, measured = await only_member(content, suffix)
    assert wire == content
    assert measured == Measured(digest=digest(content), size=len(content), diff_id=digest(content))


@both
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("content", [b"", b"small", BIG, bytes(5 << 20)], ids=["empty", "small", "big", "zeros"])
async def test_compressed_on_its_way(only_member, content, setting, suffix):
    wire, measured = await only_member(content, suffix, compression=setting)
    assert inflate(wire, setting) == content
    assert measured == Measured(digest=digest(wire), size=len(wire), diff_id=digest(content))


@pytest.mark.parametrize("setting", SETTINGS)
async def test_one_digest_from_tar_tgz_and_side_by_side(tmp_path, setting):
    layers = tuple(big_layer(2_500_000 + seed, seed=seed) for seed in range(4))
    tar = archives.podman_docker(Image(layers=layers))
    found = []
    for suffix in (".tar", ".tgz", ".tar.zst"):
        path = tmp_path / f"archive{suffix}"
        path.write_bytes(COMPRESSORS[suffix](tar))
        files = (await read_archive(path, compression=setting)).files
        found.append({name: measured for name, measured in files.items() if name.endswith(".tar")})
    async with opened(tar, tmp_path) as archive:
        members = [member for member in archive._contents if member.path.endswith(".tar") and member.kind is Kind.FILE]
        side_by_side = await asyncio.gather(*(drain(archive.blob(m, compression=setting)) for m in members))
    assert found[0] == found[1] == found[2]
    assert {m.path: measured for m, (_, measured) in zip(members, side_by_side, strict=True)} == found[0]


@both
@pytest.mark.parametrize("compress", [gz, zst])
async def test_compressed_layers_tell_their_diff_id(only_member, compress, suffix):
    wire, measured = await only_member(compress(BIG), suffix, expect=Expectation(diff_id=digest(BIG)))
    assert wire == compress(BIG)
    assert measured.diff_id == digest(BIG)


async def test_what_is_not_inflated_tells_no_diff_id(only_member):
    _, measured = await only_member(gz(BIG), inflate=False, expect=Expectation(diff_id=digest(b"unseen")))
    assert measured.diff_id is None


@both
async def test_what_is_not_hashed_repeats_the_digest_that_was_announced(only_member, suffix):
    announced = digest(b"announced")
    wire, measured = await only_member(
        gz(BIG), suffix, inflate=False, hashes=False, expect=Expectation(digest=announced)
    )
    assert wire == gz(BIG)
    assert measured == Measured(digest=announced, size=len(gz(BIG)))
    _, measured = await only_member(gz(BIG), suffix, inflate=False, hashes=False)
    assert measured.digest == digest(gz(BIG))


@both
async def test_what_is_not_hashed_is_counted_and_its_diff_id_compared(only_member, suffix):
    sha512 = Digest("sha512", hashlib.sha512(BIG).hexdigest())
    expect = Expectation(digest=sha512, diff_id=digest(BIG))
    _, measured = await only_member(BIG, suffix, inflate=False, hashes=False, expect=expect)
    assert (measured.digest, measured.diff_id) == (sha512, digest(BIG))
    for wrong in (Expectation(digest=sha512, size=1), Expectation(digest=digest(BIG), diff_id=digest(b"other"))):
        with pytest.raises(ArchiveError, match=r"bytes, not 1|diff ID"):
            await only_member(BIG, suffix, inflate=False, hashes=False, expect=wrong)


async def test_other_digest_algorithms(only_member):
    sha512 = Digest("sha512", hashlib.sha512(BIG).hexdigest())
    _, measured = await only_member(BIG, expect=Expectation(digest=sha512, diff_id=digest(BIG)))
    assert (measured.digest, measured.diff_id) == (sha512, digest(BIG))
    _, measured = await only_member(gz(BIG), expect=Expectation(diff_id=sha512))
    assert (measured.digest, measured.diff_id) == (digest(gz(BIG)), sha512)


@both
@pytest.mark.parametrize(
    ("content", "expect", "sentence"),
    [
        (b"content", Expectation(size=8), "some/blob: it has 7 bytes, not 8"),
        (
            b"content",
            Expectation(digest=digest(b"other")),
            f"some/blob: its digest is {digest(b'content')}, not {digest(b'other')}",
        ),
        (
            gz(b"content"),
            Expectation(diff_id=digest(b"other")),
            f"some/blob: its diff ID is {digest(b'content')}, but the image's config says {digest(b'other')}",
        ),
        (
            lzma.compress(b"content"),
            Expectation(diff_id=digest(b"content")),
            "some/blob: it is compressed in a way that layers may not be",
        ),
        (
            gz(b"content")[:-8] + bytes(8),
            Expectation(compression=Compression.GZIP),
            "some/blob, byte 0: the gzip data is corrupt: its checksum is wrong",
        ),
        (
            gz(b"content")[:-4],
            Expectation(diff_id=digest(b"content")),
            f"some/blob, byte {len(gz(b'content')) - 4}: the gzip data is cut off",
        ),
    ],
)
async def test_what_is_not_as_expected_says_so_and_where(only_member, content, expect, sentence, suffix):
    with pytest.raises(ArchiveError) as caught:
        await only_member(content, suffix, expect=expect)
    assert str(caught.value) == sentence
    assert not caught.value.incomplete


async def test_a_layer_may_be_of_another_kind_than_it_is_called(only_member):
    expect = Expectation(diff_id=digest(BIG), compression=Compression.GZIP)
    for content in (zst(BIG), BIG):
        wire, _ = await only_member(content, expect=expect)
        assert wire == content


async def test_unsound_data_that_nobody_called_sound_is_a_flaw_and_no_failure(tmp_path):
    content = gz(b"content")[:-4] + b"junk"
    async with opened(make_tar([("file.gz", content)]), tmp_path) as archive:
        (member,) = archive._contents
        async with archive.blob(member)() as reader:
            while await reader.read():
                pass
            assert reader.measured == Measured(digest=digest(content), size=len(content))
            assert reader.compression is Compression.GZIP
            assert str(reader.error).endswith("the gzip data is corrupt: its checksum is wrong")


class TestRewinding:
    """A member of a plain tar can be read again from any byte."""

    @pytest.fixture
    async def reader(self, tmp_path):
        async with opened(make_tar([("blob", gz(BIG))]), tmp_path) as archive:
            (member,) = archive._contents
            async with archive.blob(member, expect=Expectation(diff_id=digest(BIG)))() as reader:
                yield reader

    @pytest.mark.parametrize("offset", [0, 1, 500_000, PIECE_BYTES, PIECE_BYTES + 7])
    async def test_bytes_that_are_read_again_count_once(self, reader, offset):
        pieces = [bytes(await reader.read()), bytes(await reader.read())]
        before = b"".join(pieces)
        await reader.rewind(min(offset, len(before)))
        wire = before[: min(offset, len(before))]
        while piece := await reader.read():
            assert len(piece) <= PIECE_BYTES
            wire += bytes(piece)
        assert wire == gz(BIG)
        assert reader.measured == Measured(digest=digest(gz(BIG)), size=len(gz(BIG)), diff_id=digest(BIG))

    async def test_even_from_its_end(self, reader):
        while await reader.read():
            pass
        measured = reader.measured
        await reader.rewind(10)
        again = b""
        while piece := await reader.read():
            again += bytes(piece)
        assert again == gz(BIG)[10:]
        assert reader.measured == measured

    async def test_never_forward(self, reader):
        with pytest.raises(RuntimeError, match="cannot go back"):
            await reader.rewind(1)

    async def test_size_and_promise(self, reader):
        assert (reader.size, reader.rewindable) == (len(gz(BIG)), True)
        with pytest.raises(RuntimeError, match="not been read to its end"):
            _ = reader.measured


async def test_what_is_compressed_on_its_way_cannot_be_rewound(tmp_path):
    async with opened(make_tar([("blob", BIG)]), tmp_path) as archive:
        (member,) = archive._contents
        async with archive.blob(member, compression=Compression.GZIP)() as reader:
            await reader.read()
            assert (reader.size, reader.rewindable) == (None, False)
            with pytest.raises(RuntimeError, match="cannot go back"):
                await reader.rewind(0)


async def test_pieces_are_never_too_large_even_when_nothing_can_be_compressed(tmp_path):
    noise = b"".join(hashlib.sha256(str(at).encode()).digest() for at in range(2 * PIECE_BYTES // 32))
    async with opened(make_tar([("blob", noise)]), tmp_path) as archive:
        (member,) = archive._contents
        async with archive.blob(member, compression=Compression.GZIP)() as reader:
            sizes = []
            while piece := await reader.read():
                sizes.append(len(piece))
    assert max(sizes) <= PIECE_BYTES
    assert sum(sizes) > len(noise)


async def test_the_disk_is_told_of_every_byte_of_a_member_before_it_is_read(tmp_path, monkeypatch):
    told, read = [], []
    size = 21 * PIECE_BYTES + 5
    monkeypatch.setattr(FileSource, "expect_read", lambda _, position, count: told.append((position, count)))
    pread = FileSource.read_at

    def read_at(source, position, count):
        read.append((position, sum(told_count for _, told_count in told)))
        return pread(source, position, count)

    async with opened(make_tar([("some/blob", bytes(size)), ("another", BIG)]), tmp_path) as archive:
        member, _ = archive._contents
        monkeypatch.setattr(FileSource, "read_at", read_at)
        await drain(archive.blob(member))
    assert [position for position, _ in told] == [member.offset + (at << 23) for at in range(3)]
    assert sum(count for _, count in told) == size
    assert all(position < member.offset + until for position, until in read)


async def test_links_and_folders_are_no_blobs(tmp_path):
    async with opened(make_tar([("blob", b"x")]), tmp_path) as archive:
        with pytest.raises(ArchiveError, match="link: it is a symbolic link, not a file"):
            archive.blob(Member("link", Kind.SYMLINK, 0, 0))


class TestRawFiles:
    """A file without an archive's suffix is a blob of its own."""

    @pytest.mark.parametrize("content", [b"", b"hello\n", BIG], ids=["empty", "small", "big"])
    @pytest.mark.parametrize("setting", [*SETTINGS, Compression.NONE])
    async def test_its_bytes_are_the_layer(self, tmp_path, content, setting):
        path = tmp_path / "hello.txt"
        path.write_bytes(content)
        async with FileSource.open(path) as source:
            wire, measured = await drain(file_blob(source, compression=setting))
        assert (wire if setting is Compression.NONE else inflate(wire, setting)) == content
        assert measured == Measured(digest=digest(wire), size=len(wire), diff_id=digest(content))

    async def test_it_becomes_shorter_while_it_is_read(self, tmp_path):
        path = tmp_path / "shrinking"
        path.write_bytes(BIG)
        async with FileSource.open(path) as source, file_blob(source)() as reader:
            await reader.read()
            path.write_bytes(b"new")
            with pytest.raises(SourceChanged, match="'shrinking' changed while it was being read"):
                while await reader.read():
                    pass

    async def test_it_grows_while_it_is_read(self, tmp_path):
        path = tmp_path / "growing"
        path.write_bytes(b"before")
        async with FileSource.open(path) as source:
            path.write_bytes(b"before and after")
            wire, _ = await drain(file_blob(source, compression=Compression.NONE))
        assert wire == b"before"


class TestStreams:
    """Members that come by once."""

    async def test_what_is_not_read_is_skipped(self, tmp_path):
        packed = gz(make_tar([("big", BIG), ("small", b"s"), ("half", BIG), ("last", b"l")]))
        async with opened(packed, tmp_path) as archive:
            heads = {}
            async for member in archive.members():
                heads[member.path] = archive.head
                if member.path == "half":
                    async with archive.blob()() as reader:
                        await reader.read()
            assert heads == {"big": BIG[:512], "small": b"s", "half": BIG[:512], "last": b"l"}
            assert archive.position == len(packed)
            assert archive.rereadable

    async def test_a_member_is_opened_once(self, tmp_path):
        async with opened(gz(make_tar([("a", b"a"), ("b", b"b")])), tmp_path) as archive:
            members = archive.members()
            await anext(members)
            opener = archive.blob()
            await drain(opener)
            with pytest.raises(RuntimeError, match="read once"):
                await drain(opener)
            await anext(members)
            with pytest.raises(RuntimeError, match="gone by"):
                await drain(opener)

    async def test_images_are_known_at_the_end(self, tmp_path):
        async with opened(gz(archives.oci_archive()), tmp_path) as archive:
            with pytest.raises(RuntimeError, match="after the last member"):
                await archive.images()

    async def test_what_is_too_large_to_keep_can_still_be_sent(self, tmp_path):
        content = b"{" + b" " * (5 << 20)
        async with opened(gz(make_tar([("large.json", content)])), tmp_path) as archive:
            async for _ in archive.members():
                assert not archive.is_document
                assert await archive.keep() is None
                wire, _ = await drain(archive.blob())
        assert wire == content

    async def test_an_error_comes_again(self, tmp_path):
        async with opened(gz(make_tar([("a", layer())]))[:-9], tmp_path) as archive:
            for _ in range(2):
                with pytest.raises(ArchiveError, match="cut off"):
                    async for _ in archive.members():
                        pass
