"""The bytes around the blobs: headers, padding, the lists of what goes into an archive."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.oci.digest import Digest
from registry_spooler.oci.layout_writer import TAR_END, tar_header, tar_padding, tar_size
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.image_tree import ImageTree
from registry_spooler.pull.output import NotAnImage
from registry_spooler.pull.pulled_archives import (
    PulledFile,
    docker_archive,
    image_config,
    layer_path,
    oci_archive,
    once,
)

HELLO = Reference("hello")
CONFIG = b'{"rootfs":{"type":"layers","diff_ids":["sha256:%s","sha256:%s"]}}' % (b"1" * 64, b"2" * 64)
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
PLAIN = "application/vnd.oci.image.layer.v1.tar"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def blob(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


def image(*layers: dict[str, object], config_type: str = "application/vnd.oci.image.config.v1+json") -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(CONFIG, config_type),
        "layers": layers,
    }
    return Manifest.parse(json.dumps(document).encode())


def read(entries: tuple[PulledFile, ...]) -> dict[str, bytes]:
    """What the standard library reads from the archive, when blobs are zeros."""
    buffer = io.BytesIO()
    for entry in entries:
        content = entry.content if isinstance(entry.content, bytes) else bytes(entry.size)
        buffer.write(tar_header(entry.path, entry.size) + content + tar_padding(entry.size))
    buffer.write(TAR_END)
    assert tar_size((entry.path, entry.size) for entry in entries) == len(buffer.getvalue())
    buffer.seek(0)
    with tarfile.open(fileobj=buffer, mode="r:") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_header_of_any_size_is_one_block_that_reads_back(size):
    header = tar_header("blobs/sha256/" + "a" * 64, size)

    assert len(header) == tarfile.BLOCKSIZE
    member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (member.name, member.size, member.isreg(), member.mode) == ("blobs/sha256/" + "a" * 64, size, True, 0o644)


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_padding_fills_the_block(size, expected):
    assert len(tar_padding(size)) == expected


def test_entries_of_one_path_are_written_once_where_they_come_first():
    first, second, again = PulledFile.of("a", b"1"), PulledFile.of("b", b"2"), PulledFile.of("a", b"1")

    assert once((first, second, again)) == (first, second)


def test_a_docker_archive_has_the_layout_of_crane():
    one, two = blob(b"one", GZIP), blob(b"two", GZIP)
    entries = docker_archive(HELLO, image(one, two, one), CONFIG)

    config_path = str(Digest.of(CONFIG))
    paths = [f"{Digest.of(content).hex}.tar.gz" for content in (b"one", b"two")]
    files = read(entries)
    assert list(files) == [config_path, *paths, "manifest.json"]
    assert files[config_path] == CONFIG
    assert json.loads(files["manifest.json"]) == [
        {"Config": config_path, "RepoTags": ["hello:latest"], "Layers": [paths[0], paths[1], paths[0]]}
    ]


@pytest.mark.parametrize(
    ("media_type", "ending"),
    [(GZIP, ".tar.gz"), (DOCKER_GZIP, ".tar.gz"), (FOREIGN, ".tar.gz"), (ZSTD, ".tar.zst"), (PLAIN, ".tar")],
)
def test_a_layer_is_named_by_what_it_is(media_type, ending):
    (layer,) = image(blob(b"layer", media_type)).layers

    assert layer_path(layer) == Digest.of(b"layer").hex + ending


def test_a_foreign_layer_that_the_registry_lacks_is_named_by_its_source():
    windows = {**blob(b"windows", FOREIGN), "urls": ["https://example.com/layer"]}
    manifest = image(blob(b"one", GZIP), windows)
    entries = docker_archive(HELLO, manifest, CONFIG, absent={manifest.layers[1].digest})

    files = read(entries)
    assert f"{Digest.of(b'windows').hex}.tar.gz" not in files
    (item,) = json.loads(files["manifest.json"])
    assert len(item["Layers"]) == 2
    assert item["LayerSources"] == {"sha256:" + "2" * 64: windows}


def test_an_image_that_was_asked_for_by_digest_has_a_tag_all_the_same():
    digest = Digest.of(b"")
    entries = docker_archive(Reference("a/b", None, digest), image(), CONFIG)

    assert json.loads(read(entries)["manifest.json"])[0]["RepoTags"] == [f"a/b:{digest.hex[:12]}"]


def test_an_artifact_is_no_docker_archive():
    with pytest.raises(NotAnImage, match="--format oci"):
        image_config(HELLO, image(config_type="application/vnd.cncf.helm.config.v1+json"))


def test_an_oci_archive_begins_with_its_metadata():
    manifest = image(blob(b"one", GZIP), blob(b"one", GZIP))
    entries = oci_archive(HELLO, ImageTree(root=manifest, manifests={manifest.digest: manifest}))

    files = read(entries)
    assert list(files) == [
        "oci-layout",
        "index.json",
        f"blobs/sha256/{manifest.digest.hex}",
        f"blobs/sha256/{Digest.of(CONFIG).hex}",
        f"blobs/sha256/{Digest.of(b'one').hex}",
    ]
    assert files[f"blobs/sha256/{manifest.digest.hex}"] == manifest.content
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert (entry["digest"], entry["size"]) == (str(manifest.digest), manifest.size)
    assert entry["annotations"] == {
        "io.containerd.image.name": "hello:latest",
        "org.opencontainers.image.ref.name": "latest",
    }
