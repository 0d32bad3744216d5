"""What podman, buildah, skopeo, umoci and GNU tar really write."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.formats.image import DockerImage, OciImage
from registry_spooler.archive.member_blob import Expectation
from registry_spooler.archive.opening import IndexedArchive, open_archive
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar_header import Kind
from registry_spooler.oci.manifest import Manifest
from support.images import real_archives as tools
from support.images.archive_reading import measure

KINDS = {"gzip": Compression.GZIP, "zstd": Compression.ZSTD}
"""By the end of a layer's media type."""


async def check(path: Path) -> str:
    """Read an archive and everything its image needs, with all that can be expected of it; the image's name."""
    async with FileSource.open(path) as source, open_archive(source) as archive:
        assert isinstance(archive, IndexedArchive)
        (image,) = await archive.images()
        for member, expect in await expectations(archive, image):
            await measure(archive.blob(member, expect=expect))
        return str(image)


async def expectations(archive, image):
    if isinstance(image, DockerImage):
        return [(layer.member, Expectation(diff_id=layer.diff_id)) for layer in image.layers]
    assert isinstance(image, OciImage)
    manifest = Manifest.parse(await archive.content(image.root.digest))
    return [
        (
            archive.find(blob.digest),
            Expectation(
                digest=blob.digest,
                size=blob.size,
                compression=KINDS.get(blob.media_type.rpartition("+")[2]),
            ),
        )
        for blob in manifest.blobs
    ]


@pytest.mark.parametrize("producer", tools.SINGLE)
async def test_every_tool_is_read_and_holds_what_it_says(producer, real_archives):
    name = await check(real_archives.path(producer))
    assert name.endswith(("catalog/app:v1", "(any):v1")), name


async def test_several_images_in_one_archive(real_archives):
    path = real_archives.path(tools.SEVERAL)
    async with FileSource.open(path) as source, open_archive(source) as archive:
        names = sorted(str(image) for image in await archive.images())
    assert names == ["localhost/catalog/app:v1", "localhost/catalog/app:v2"]


@pytest.mark.parametrize("producer", ["podman-docker", "podman-oci"])
async def test_compressed_they_hold_the_same(producer, real_archives, tmp_path):
    path = real_archives.path(producer)
    packed = tmp_path / "archive.tgz"
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    async with FileSource.open(path) as source, open_archive(source) as archive:
        images = await archive.images()
        expected = {m.path: await measure(archive.blob(m)) for m in archive._contents if m.kind is Kind.FILE}
    async with FileSource.open(packed) as source, open_archive(source) as archive:
        assert isinstance(archive, StreamedArchive)
        found = {}
        async for member in archive.members():
            if archive.is_document:
                await archive.keep()
            elif member.kind is Kind.FILE:
                found[member.path] = await measure(archive.blob())
        assert [str(image) for image in await archive.images()] == [str(image) for image in images]
    assert found == {path: measured for path, measured in expected.items() if path in found}
    assert len(found) >= 2


@pytest.fixture
def pack_again(real_archives, tmp_path):
    """Take an archive apart and pack its folder `top` with GNU tar."""

    def pack(producer: str, *arguments: str) -> Path:
        top, target = tmp_path / "top", tmp_path / "again.tar"
        top.mkdir()
        subprocess.run(["tar", "-x", "-f", real_archives.path(producer), "-C", top], check=True, timeout=60)
        subprocess.run(["tar", "-c", "-f", target, *arguments], check=True, timeout=60, cwd=tmp_path)
        return target

    return pack


@pytest.mark.parametrize(
    "options",
    [
        "--format=gnu",
        "--format=pax",
        "--format=ustar",
        "--format=posix --xattrs --acls",
        "--format=gnu --listed-incremental=snapshot",
        "--format=gnu --label=volume",
        "--format=pax --blocking-factor=200",
        "--format=v7",
        "--format=gnu --sparse",
        "--format=pax --sparse",
    ],
)
@pytest.mark.parametrize("what", ["-C top .", "top", "./top"])
async def test_packed_again_by_gnu_tar(options, what, pack_again):
    archive = pack_again("podman-oci", *options.split(), *what.split())
    assert (await check(archive)).endswith("catalog/app:v1")


async def test_packed_again_with_absolute_names(pack_again, tmp_path):
    archive = pack_again("podman-docker", "--absolute-names", str(tmp_path / "top"))
    assert (await check(archive)).endswith("catalog/app:v1")
