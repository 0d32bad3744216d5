"""`--repack`: the layers of an OCI archive are compressed anew, as those of a docker archive would be."""

from __future__ import annotations

from typing import Any

import pytest

from registry_spooler.archive.compression import Compression
from registry_spooler.errors import ArchiveError, ArchiveTruncated
from registry_spooler.progress import ImageResult
from registry_spooler.push.pusher import PushOptions
from support.images import archives
from support.images.archive_parts import Image, big_layer, gz, layer, make_tar, read_tar, zst
from support.programs.desk import Desk
from support.registries.verify import Reader

REPACK = PushOptions(repack=True)
IMAGE = Image(layers=(big_layer(3 << 20), layer("top")))


def skopeo(image: Image, compress: Any) -> bytes:
    return archives.oci_archive(image, compress=compress)


def docker_with_containerd(image: Image, compress: Any) -> bytes:
    return archives.docker_25(image, compress=compress)


def crane(image: Image, compress: Any) -> bytes:
    return archives.crane(image, compress=compress)


@pytest.mark.parametrize("compress", [gz, zst])
@pytest.mark.parametrize("write", [skopeo, docker_with_containerd, crane])
async def test_the_image_is_the_one_that_a_docker_archive_gives(
    desk: Desk, reader: Reader, repository: str, write: Any, compress: Any
) -> None:
    plain = await desk.push(archives.podman_docker(IMAGE), f"{repository}/plain:1")
    result = await desk.push(write(IMAGE, compress), f"{repository}:1", options=REPACK)
    assert result.digest == plain.digest
    assert reader.image(repository, "1").diff_ids == tuple(IMAGE.diff_ids)


async def test_another_compression_is_one_that_was_asked_for(desk: Desk, reader: Reader, repository: str) -> None:
    options = PushOptions(repack=True, compression=Compression.ZSTD)
    await desk.push(archives.oci_archive(IMAGE), f"{repository}:1", options=options)
    types = {found.media_type for found in reader.image(repository, "1").layers}
    assert types == {"application/vnd.oci.image.layer.v1.tar+zstd"}


async def test_the_receipt_has_the_digest_of_before(desk: Desk, repository: str) -> None:
    tar = archives.oci_archive(IMAGE)
    before = (await desk.push(tar, f"{repository}:1")).digest
    result = await desk.push(tar, f"{repository}:2", options=REPACK)
    assert result.repacked_from == before != result.digest
    assert ImageResult.from_json(result.to_json()) == result


async def test_again_it_is_known_and_nothing_is_read(desk: Desk, repository: str) -> None:
    tar = archives.oci_archive(IMAGE)
    first = await desk.push(tar, f"{repository}:1", options=REPACK)
    again = await desk.push(tar, f"{repository}:2", options=REPACK)
    assert again.digest == first.digest
    assert desk.progress.bytes_read < 64 << 10


async def test_what_speaks_of_the_image_as_it_was_is_left_out(desk: Desk, repository: str) -> None:
    result = await desk.push(archives.containerd([IMAGE], attest=True), f"{repository}:1", options=REPACK)
    (left_out,) = result.left_out
    assert left_out.reason == "it speaks of the image with the layers as they were"


async def test_of_an_index_the_platform_that_is_there_is_taken(desk: Desk, repository: str) -> None:
    absent = Image(layers=(layer("other"),), platform="linux/arm64")
    tar = archives.containerd([IMAGE, absent], missing=[absent])
    plain = await desk.push(archives.podman_docker(IMAGE), f"{repository}/plain:1")
    assert (await desk.push(tar, f"{repository}:1", options=REPACK)).digest == plain.digest


@pytest.mark.parametrize(
    ("tar", "suffix", "complaint"),
    [
        (archives.containerd([IMAGE, Image(platform="linux/arm64")]), ".tar", r"holds 2 \(linux/amd64, linux/arm64\)"),
        (archives.oci_archive(IMAGE), ".tgz", "only be compressed anew from a plain archive in a file"),
        (archives.containerd([IMAGE], missing=[IMAGE]), ".tar", "holds none that is complete"),
    ],
    ids=["platforms", "stream", "incomplete"],
)
async def test_what_cannot_be_compressed_anew_is_refused(
    desk: Desk, reader: Reader, repository: str, tar: bytes, suffix: str, complaint: str
) -> None:
    with pytest.raises(ArchiveError, match=complaint):
        await desk.push(tar, f"{repository}:1", suffix=suffix, options=REPACK)
    assert not reader.has(repository, "1")


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage", "other"])
async def test_a_broken_layer_is_an_error_of_the_archive(
    desk: Desk, reader: Reader, repository: str, damage: str
) -> None:
    good = gz(IMAGE.layers[0])
    bad = {
        "cut": good[:-9],
        "flipped": good[:-5000] + bytes([good[-5000] ^ 0xFF]) + good[-4999:],
        "garbage": good + b"something else",
        "other": gz(IMAGE.layers[0][:-1] + b"x"),
    }[damage]
    files = read_tar(archives.oci_archive(IMAGE))
    tar = make_tar([(path, bad if content == good else content) for path, content in files.items()])
    with pytest.raises(ArchiveError) as caught:
        await desk.push(tar, f"{repository}:1", options=REPACK)
    assert not isinstance(caught.value, ArchiveTruncated)
    assert not reader.has(repository, "1")
