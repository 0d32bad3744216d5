"""What an archive says of itself: tar headers with their extensions, manifests and indexes, manifest.json."""

from __future__ import annotations

import itertools
import os
import tarfile

from fuzz.target import FuzzTarget
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.formats.layout import find_images
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.tar import ByteReader, FileByteReader, TarReader
from registry_spooler.archive.tar_header import BLOCK_BYTES, Kind, Member, escapes, normalise, read_records
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Manifest
from support.images import archives
from support.images.archive_parts import Hardlink, Image, Symlink, make_tar, read_tar
from support.images.archive_reading import tape_of

MEMBERS_READ = 2000
"""Of one input; 4 KiB cannot hold more."""


def check_tar(data: bytes) -> None:
    """Both tapes tell the same members, in their order, and each lies within the archive."""
    content = _with_checksums(data)
    streamed, complaint = _members(tape_of(content))
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, content)
        indexed, same_complaint = _members(FileByteReader(FileSource(fd, name="fuzz")))
    finally:
        os.close(fd)
    assert (indexed, same_complaint) == (streamed, complaint)
    for earlier, later in itertools.pairwise(streamed):
        assert earlier.offset + earlier.size < later.offset, "members overlap"
    for member in streamed:
        assert member.size >= 0
        assert normalise(member.path) == member.path
    _check_records(data)


def _check_records(data: bytes) -> None:
    """PAX records that were read are what is written for them."""
    try:
        records = list(read_records(data))
    except ValueError:
        return
    rendered = b"".join(_record(key, value) for key, value in records)
    assert list(read_records(rendered)) == records


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _members(tape: ByteReader) -> tuple[list[Member], str]:
    reader = TarReader(tape)
    found: list[Member] = []
    try:
        while (member := reader.next()) is not None:
            found.append(member)
            assert len(found) < MEMBERS_READ, "no end of members"
    except ArchiveError as error:
        assert str(error).isprintable()
        return found, str(error)
    return found, ""


def _with_checksums(data: bytes) -> bytes:
    """The same with true checksums in all blocks that look like headers: no chance would ever make one."""
    blocks = [bytearray(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)]
    for block in blocks:
        if len(block) == BLOCK_BYTES and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def _tar_seeds() -> list[bytes]:
    entries = [("a/b", b"content"), ("l", Symlink("a/b")), ("h", Hardlink("a/b")), ("n" * 150, b"long")]
    styles = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    tars = [make_tar(entries[: 3 if style == tarfile.USTAR_FORMAT else 4], style=style) for style in styles]
    records = b"".join(itertools.starmap(_record, ((b"path", b"x/y"), (b"size", b"7"), (b"GNU.sparse.name", b"z"))))
    return [tar.rstrip(b"\0") + bytes(1024) for tar in tars] + [records]


def check_manifest(data: bytes) -> None:
    """A manifest keeps its bytes; its descriptors read back as written. An index leads to images or an error."""
    try:
        manifest = Manifest.parse(data)
    except ArchiveError as error:
        assert str(error).isprintable()
    else:
        assert manifest.content == data
        assert manifest.digest == Digest.of(data)
        assert Manifest.parse(manifest.content) == manifest
        for descriptor in (*manifest.blobs, *manifest.manifests):
            _check_descriptor(descriptor)
    _images_of(LAYOUT | {"index.json": data})


def _check_descriptor(descriptor: Descriptor) -> None:
    assert descriptor.size >= 0
    again = Descriptor.read(descriptor.to_json(), where="again")
    assert (again.digest, again.size, again.urls) == (descriptor.digest, descriptor.size, descriptor.urls)
    assert (again.media_type, again.annotations) == (descriptor.media_type, descriptor.annotations)


def check_docker(data: bytes) -> None:
    """A manifest.json leads to images whose layers lie in the archive, or to an error."""
    _images_of(DOCKER | {"manifest.json": data})
    _images_of(LAYOUT | {"manifest.json": data})
    config = next(name for name in DOCKER if name.endswith(".json") and name != "manifest.json")
    _images_of(DOCKER | {config: data, "manifest.json": DOCKER["manifest.json"].replace(config.encode(), b"config")})
    _images_of(DOCKER | {"config": data, "manifest.json": DOCKER["manifest.json"].replace(config.encode(), b"config")})


def _images_of(files: dict[str, bytes]) -> None:
    contents = Contents(fetch=lambda member: files[member.path])
    contents.complete = True
    for path, content in files.items():
        contents.add(Member(path, Kind.FILE, len(content), 0))
    try:
        for image in find_images(contents):
            assert str(image)
            for layer in getattr(image, "layers", ()):
                assert layer.member is None or not escapes(layer.member.path)
    except ArchiveError as error:
        assert str(error).isprintable()


LAYOUT = read_tar(archives.containerd([Image(), Image(platform="linux/arm64")], attest=True))
DOCKER = read_tar(archives.podman_docker())


def _document_seeds(name: str) -> list[bytes]:
    found = [read_tar(archive) for archive in archives.EXAMPLES.values()]
    return list({files[name] for files in found if name in files})


def _manifest_seeds() -> list[bytes]:
    documents = {content for content in LAYOUT.values() if content.startswith(b"{")}
    return [*documents, archives.oci_manifest(Image()), *_document_seeds("index.json")]


TARGETS = {
    "tar": FuzzTarget(check=check_tar, seeds=_tar_seeds, max_bytes=8192),
    "manifest": FuzzTarget(check=check_manifest, seeds=_manifest_seeds, is_json=True),
    "docker": FuzzTarget(
        check=check_docker,
        seeds=lambda: [*_document_seeds("manifest.json"), Image().config],
        is_json=True,
    ),
}
