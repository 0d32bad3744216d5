"""A bad archive gives a sentence that says what is wrong, and tags nothing."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from registry_spooler.errors import ArchiveError, DigestNotSupported
from registry_spooler.push.pusher import PushOptions
from support.images import archives
from support.images.archive_parts import COMPRESSORS, Image, big_layer, digest, gz, hexdigest, layer, make_tar, read_tar
from support.programs.desk import Desk
from support.registries.verify import Reader

OTHER = layer("another layer altogether")


def changed(tar: bytes, content: bytes, replacement: bytes) -> bytes:
    """The archive with other bytes in one of its members."""
    return make_tar([(path, replacement if data == content else data) for path, data in read_tar(tar).items()])


def swapped() -> bytes:
    """A docker archive whose config lists the layers the other way round."""
    image, turned = Image(), Image(layers=Image().layers[::-1])
    return changed(archives.jib(image), image.config, turned.config)


def document_as_layer() -> bytes:
    """A docker archive whose manifest.json calls the config a layer."""
    tar, image = archives.podman_docker(), Image()
    index = read_tar(tar)["manifest.json"]
    config, lowest = f"{hexdigest(image.config)}.json", f"{hexdigest(image.layers[0])}.tar"
    return changed(tar, index, index.replace(f'"{lowest}"'.encode(), f'"{config}"'.encode()))


def with_manifest(**fields: object) -> bytes:
    """An OCI archive whose manifest says something else in some fields."""
    manifest = archives.dumps(json.loads(archives.oci_manifest(Image())) | fields)
    index = archives.oci_index([archives.descriptor(archives.MANIFEST, manifest)])
    return archives.layout([*archives.oci_blobs(Image()), archives.blob(manifest)], index)


BAD = {
    "a document where a layer should be": (document_as_layer(), "diff ID"),
    "a manifest of another schema": (with_manifest(schemaVersion=1), "schemaVersion is '1'"),
    "a layer of a docker archive with other bytes": (
        changed(archives.podman_docker(), layer("second"), OTHER),
        "diff ID",
    ),
    "layers in the wrong order": (swapped(), "diff ID"),
    "a blob that is not what its name says": (
        changed(archives.oci_archive(), gz(layer("second")), gz(OTHER)),
        "digest|bytes|size",
    ),
    "a compressed layer cut short": (
        changed(archives.crane(), gz(layer("second")), gz(layer("second"))[:-9]),
        "second|end|cut|short|trunc",
    ),
    "a manifest that is no JSON": (
        changed(archives.oci_archive(), archives.oci_manifest(Image()), b"{"),
        "JSON|digest",
    ),
    "a wrong size in the index": (
        archives.oci_archive().replace(
            f'"size":{len(archives.oci_manifest(Image()))},"annotations"'.encode(),
            f'"size":{len(archives.oci_manifest(Image())) + 1:d},"annotations"'.encode(),
        ),
        "bytes",
    ),
    "no archive of images": (make_tar([("etc/passwd", b"root")]), "image"),
}


ONLY_INFLATING_TELLS = {"a compressed layer cut short", "layers in the wrong order"}
"""A docker archive says nothing of a compressed layer's own bytes."""


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("name", list(BAD))
async def test_a_bad_archive_tags_nothing(name: str, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
    tar, reason = BAD[name]
    options = PushOptions(inflate=name in ONLY_INFLATING_TELLS)
    with pytest.raises(ArchiveError, match=reason) as caught:
        await desk.push(tar, repository, suffix=suffix, options=options)
    assert not caught.value.temporary
    assert reader.tags(repository) == []


async def test_a_child_goes_by_the_digest_that_its_index_names(desk: Desk, reader: Reader, repository: str) -> None:
    """Distribution knows manifests by sha256 alone: it refuses this for good, and is not asked again and again."""
    manifest = archives.oci_manifest(Image())
    name = hashlib.sha512(manifest).hexdigest()
    described = archives.descriptor(archives.MANIFEST, manifest, platform=archives.platform_of(Image()))
    index = archives.oci_index([{**described, "digest": f"sha512:{name}"}])
    entries = [*archives.oci_blobs(Image()), (f"blobs/sha512/{name}", manifest), archives.blob(index)]
    tar = archives.layout(entries, archives.oci_index([archives.descriptor(archives.INDEX, index)]))

    with pytest.raises(DigestNotSupported, match=f"sha512:{name}") as caught:
        await desk.push(tar, repository)

    assert not caught.value.temporary
    assert reader.tags(repository) == []


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_a_wrong_size_of_a_blob_that_is_there_already(
    suffix: str, desk: Desk, reader: Reader, repository: str
) -> None:
    await desk.push(archives.oci_archive(), f"{repository}:good")
    layers = json.loads(archives.oci_manifest(Image()))["layers"]
    wrong = with_manifest(layers=[{**layers[0], "size": 5}, *layers[1:]])

    with pytest.raises(ArchiveError, match=r"size|bytes"):
        await desk.push(wrong, f"{repository}:bad", suffix=suffix)

    assert reader.tags(repository) == ["good"]


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("parts", [3, 10, 50, 90])
async def test_a_cut_archive_reads_as_incomplete(
    parts: int, suffix: str, desk: Desk, reader: Reader, repository: str
) -> None:
    whole = COMPRESSORS[suffix](archives.podman_docker(Image(layers=(big_layer(200_000), layer("top")))))
    path = desk.folder / f"cut{suffix}"
    path.write_bytes(whole[: len(whole) * parts // 100])
    with pytest.raises(ArchiveError) as caught:
        await desk.push_path(path, repository)
    assert caught.value.incomplete
    assert reader.tags(repository) == []


@pytest.mark.parametrize("position", [12, 40, 75])
async def test_a_flipped_byte_in_a_compressed_archive(
    position: int, desk: Desk, reader: Reader, repository: str
) -> None:
    whole = bytearray(gz(archives.podman_docker(Image(layers=(big_layer(200_000), layer("top"))))))
    whole[len(whole) * position // 100] ^= 0xFF
    path = desk.folder / "flipped.tgz"
    path.write_bytes(whole)
    with pytest.raises(ArchiveError):
        await desk.push_path(path, repository)
    assert reader.tags(repository) == []


async def test_members_that_no_manifest_names_leave_no_blob(desk: Desk, reader: Reader, repository: str) -> None:
    """In a stream they are uploaded before anybody knows, and cancelled when all is known."""
    stray = gz(make_tar([("noise", os.urandom(300_000))]))
    members = [("aaa-stray.tar.gz", stray), *read_tar(archives.podman_docker()).items()]
    await desk.push(make_tar(members), repository, suffix=".tgz")
    assert await desk.registry.blob_exists(repository, digest(stray)) is None
    assert hexdigest(stray) not in str(reader.image(repository).manifest)
