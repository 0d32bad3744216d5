"""The tar reader, against the standard library's writer and against what other tools and people make."""

from __future__ import annotations

import io
import itertools
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.archive.tar import StreamByteReader, TarReader
from registry_spooler.archive.tar_header import Kind, Member, normalise
from registry_spooler.errors import ArchiveError, ArchiveTruncated
from support.images.archive_parts import Hardlink, Symlink, make_tar, without_end_marker
from support.images.archive_reading import tape_of

KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.FIFOTYPE: Kind.OTHER,
}
STYLES = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def read_all(tape: StreamByteReader) -> tuple[list[tuple[str, Kind, str, bytes]], TarReader]:
    """Every member with its data."""
    reader, members = TarReader(tape), []
    while (member := reader.next()) is not None:
        members.append((member.path, member.kind, member.link, tape.read(member.size)))
    return members, reader


def members_of(archive: bytes) -> list[Member]:
    reader, members = TarReader(tape_of(archive)), []
    while (member := reader.next()) is not None:
        members.append(member)
    return members


def header(
    name: bytes, *, size: bytes = b"00000000000\0", type_: bytes = b"0", magic: bytes = b"", link: bytes = b""
) -> bytes:
    """A header block by hand."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = size.ljust(12, b"\0")
    block[156:157] = type_
    block[157 : 157 + len(link)] = link
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


names = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=60).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=6,
).map("/".join)
cuts = st.lists(st.integers(1, 100_000), min_size=1, max_size=4)
entries = st.tuples(names, st.sampled_from(list(KINDS)), st.binary(max_size=600), names)


def write(members: list[tuple[str, bytes, bytes, str]], style: int) -> bytes | None:
    """With the standard library; None when the style cannot say it."""
    out = io.BytesIO()
    try:
        with tarfile.open(fileobj=out, mode="w", format=style) as tar:
            for path, kind, content, link in members:
                info = tarfile.TarInfo(path)
                info.type = kind
                info.size = len(content) if kind == tarfile.REGTYPE else 0
                info.linkname = link if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
                tar.addfile(info, io.BytesIO(content))
    except ValueError:
        return None  # a name that ustar has no room for
    return out.getvalue()


@given(st.lists(entries, max_size=8), st.sampled_from(STYLES), cuts)
def test_it_reads_what_the_standard_library_writes(members, style, cuts):
    archive = write(members, style)
    if archive is None:
        return
    sizes = itertools.cycle(cuts)
    tape = tape_of(archive, lambda count: min(count, next(sizes)))
    found, reader = read_all(tape)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        expected = [
            (
                normalise(info.name),
                KINDS[info.type],
                info.linkname,
                tar.extractfile(info).read() if info.isreg() else b"",
            )
            for info in tar
        ]
    assert found == expected
    assert reader.ended


@given(st.binary(max_size=4096))
def test_any_bytes_end_in_an_answer(content):
    try:
        read_all(tape_of(content))
    except ArchiveError as error:
        assert "\n" not in str(error)


@given(st.integers(0, 8), st.binary(min_size=1, max_size=40), st.integers(0, 10_000))
def test_a_damaged_archive_ends_in_an_answer(times, noise, at):
    archive = bytearray(
        make_tar([("a", b"x" * 700), ("long" * 60, b"y"), ("l", Symlink("a"))], style=tarfile.PAX_FORMAT)
    )
    for time in range(times):
        place = (at * (time + 1)) % len(archive)
        archive[place : place + len(noise)] = noise
    try:
        read_all(tape_of(bytes(archive)))
    except ArchiveError as error:
        assert str(error)


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_long_links(style):
    long_name, long_link = "folder/" * 60 + "name", "target/" * 50 + "name"
    archive = make_tar([(long_name, b"content"), ("link", Symlink(long_link)), ("after", b"")], style=style)
    found, _ = read_all(tape_of(archive))
    assert found == [
        (long_name, Kind.FILE, "", b"content"),
        ("link", Kind.SYMLINK, long_link, b""),
        ("after", Kind.FILE, "", b""),
    ]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("./a/b", "a/b"),
        ("/a/b", "a/b"),
        ("a//b/./c", "a/b/c"),
        ("a/../b", "b"),
        ("../x", "../x"),
        ("./", ""),
        ("a.b/", "a.b"),
    ],
)
def test_names_are_normalised(written, path):
    assert normalise(written) == path


def test_an_old_v7_header_and_its_folders():
    archive = header(b"file", size=b"3", type_=b"\0") + padded(b"abc") + header(b"folder/", type_=b"\0") + bytes(1024)
    found, _ = read_all(tape_of(archive))
    assert found == [("file", Kind.FILE, "", b"abc"), ("folder", Kind.DIRECTORY, "", b"")]


def test_checksums_of_signed_bytes():
    block = bytearray(header(b"caf\xc3\xa9"))
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256
    block[148:156] = b"%06o\0 " % signed
    assert [member.path for member in members_of(bytes(block) + bytes(1024))] == ["café"]


def test_a_size_in_base_256():
    size = (0x80 << 88 | (9 << 30)).to_bytes(12, "big")
    reader = TarReader(tape_of(header(b"big", size=size)))
    assert reader.next().size == 9 << 30


def test_a_size_in_a_pax_record_and_one_for_all():
    record = b"12 size=700\n"
    globally = b"18 comment=hello\n\n"[:17].replace(b"18", b"17")
    archive = (
        header(b"g", type_=b"g", size=b"21")
        + padded(globally)
        + header(b"x", type_=b"x", size=b"14")
        + padded(record)
        + header(b"file", size=b"0")
        + padded(b"z" * 700)
        + bytes(1024)
    )
    found, _ = read_all(tape_of(archive))
    assert found == [("file", Kind.FILE, "", b"z" * 700)]


def test_sparse_files_are_told_apart_and_passed_over():
    old = bytearray(header(b"old", type_=b"S", size=b"1000", magic=b"ustar  \0"))
    old[482] = 1
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    more = bytearray(512)
    records = b"22 GNU.sparse.major=1\n29 GNU.sparse.name=real/name\n"
    archive = (
        bytes(old)
        + bytes(more)
        + padded(b"d" * 512)
        + header(b"x", type_=b"x", size=b"%o" % len(records))
        + padded(records)
        + header(b"GNUSparseFile.1/name", size=b"10")
        + padded(b"m" * 8)
        + header(b"after", size=b"0")
        + bytes(1024)
    )
    assert [(m.path, m.kind, m.size) for m in members_of(archive)] == [
        ("old", Kind.SPARSE, 512),
        ("real/name", Kind.SPARSE, 8),
        ("after", Kind.FILE, 0),
    ]


def test_gnu_volumes_incremental_folders_and_old_names_are_passed_over():
    archive = (
        header(b"label", type_=b"V")
        + header(b"folder/", type_=b"D", size=b"5")
        + padded(b"Yabc\0")
        + header(b"list", type_=b"N", size=b"3")
        + padded(b"abc")
        + header(b"file", size=b"1")
        + padded(b"f")
        + bytes(1024)
    )
    assert [(m.path, m.kind) for m in members_of(archive)] == [("folder", Kind.DIRECTORY), ("file", Kind.FILE)]


def test_a_continued_volume_is_refused():
    with pytest.raises(ArchiveError, match="multi-volume"):
        members_of(header(b"file", type_=b"M", size=b"1"))


def test_links_claim_no_data():
    archive = header(b"link", type_=b"1", size=b"1000", link=b"file") + header(b"file", size=b"1") + padded(b"f")
    assert [m.path for m in members_of(archive)] == ["link", "file"]


@pytest.mark.parametrize("between", [b"", bytes(512), bytes(10240)], ids=["nothing", "one block", "a record"])
def test_concatenated_tars_are_one(between):
    first, second = without_end_marker(make_tar([("a", b"1")])), make_tar([("b", b"2")])
    found, reader = read_all(tape_of(first + between + second))
    assert [path for path, *_ in found] == ["a", "b"]
    assert reader.archives == (2 if between else 1)


def test_garbage_behind_the_end_is_ignored_as_every_tar_does():
    found, reader = read_all(tape_of(make_tar([("a", b"1")]) + b"signature" * 100))
    assert [path for path, *_ in found] == ["a"]
    assert reader.ended


@pytest.mark.parametrize("tail", [b"", bytes(512), bytes(300)], ids=["no marker", "one block", "cut marker"])
def test_where_the_end_is_marked(tail):
    archive = without_end_marker(make_tar([("a", b"x" * 512)])) + tail
    if len(tail) == 300:
        with pytest.raises(ArchiveTruncated, match="within a header"):
            read_all(tape_of(archive))
        return
    found, reader = read_all(tape_of(archive))
    assert (len(found), reader.ended) == (1, bool(tail))


def test_missing_padding_at_the_end_is_no_loss():
    archive = header(b"a", size=b"3") + b"abc"
    assert read_all(tape_of(archive))[0] == [("a", Kind.FILE, "", b"abc")]


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (header(b"a", size=b"2000") + b"short", "the archive ends 1,019 bytes before this member does (a)"),
        (header(b"a")[:300], "the archive ends within a header (byte 300)"),
        (header(b"L", type_=b"L", size=b"400") + b"name", "the archive ends within an extended header (byte 516)"),
    ],
)
def test_cut_archives_say_where(archive, sentence):
    with pytest.raises(ArchiveTruncated) as caught:
        members_of(archive)
    assert str(caught.value) == sentence
    assert caught.value.incomplete


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (b"\1" * 512, "byte 0: it is no tar archive: the checksum of the header is wrong"),
        (
            make_tar([("a", b"1")])[:1024] + b"\1" * 512,
            "byte 1024, behind a: the archive is corrupt: the checksum of the header is wrong",
        ),
        (
            header(b"a", size=b"\xff" * 12),
            "byte 0: it is no tar archive: a number in the header is negative or too large",
        ),
        (header(b"a", size=b"12345678x"), "byte 0: it is no tar archive: a number in the header is not octal"),
        (
            header(b"x", type_=b"x", size=b"77777777777"),
            "byte 0: an extended header claims 8,589,934,591 bytes; more than 1,048,576 is refused",
        ),
        (
            header(b"x", type_=b"x", size=b"4") + padded(b"what"),
            "byte 1024: an extended header is corrupt: a record has no length",
        ),
        (
            header(b"x", type_=b"x", size=b"14") + padded(b"99 path=name\n"),
            "byte 1024: an extended header is corrupt: a record is not `length key=value`",
        ),
        (
            make_tar([("n" * 5000, b"")]),
            "byte 5632: a member's name is longer than 4096 bytes",
        ),
    ],
)
def test_corrupt_archives_say_what_and_where(archive, sentence):
    with pytest.raises(ArchiveError) as caught:
        members_of(archive)
    assert str(caught.value) == sentence
    assert not caught.value.incomplete


def test_hard_links_keep_their_target():
    assert [(m.kind, m.link) for m in members_of(make_tar([("a", b""), ("b", Hardlink("a"))]))] == [
        (Kind.FILE, ""),
        (Kind.HARDLINK, "a"),
    ]
