"""`pull`: what comes out is what was put in, byte for byte, or is seen to be incomplete."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.images.posted import DOCKER, layer_tar, packed, sha256
from support.programs.running_spooler import program
from support.registries.verify import Reader

LAYER = layer_tar({"hello": b"hello\n"})


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def is_complete(archive: bytes) -> bool:
    return len(archive) % 512 == 0 and archive.endswith(bytes(1024))


def test_the_pipeline_of_the_readme_gives_a_raw_files_bytes_back(client, tmp_path):
    (tmp_path / "hello.txt").write_bytes(b"hello\n" * 1000)
    client.run("push", "hello", "hello.txt")

    pipeline = "registry-client pull hello | tar --extract --to-stdout --wildcards '*.gz' | gunzip"
    bin_folder = str(Path(program("registry-client")).parent)
    environment = {**client.variables, "PATH": f"{bin_folder}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", pipeline], env=environment, capture_output=True, timeout=60, check=True
    )

    assert done.stdout == b"hello\n" * 1000
    assert done.stderr == b""


def test_a_docker_archive(client, poster, repository):
    poster.image([LAYER, LAYER], tag="v1")

    archive = client.run("pull", "--", f"{repository}:v1").stdout

    assert is_complete(archive)
    files = members(archive)
    layer_path = f"{sha256(packed(LAYER)).removeprefix('sha256:')}.tar.gz"
    config_path, *rest = files
    assert sha256(files[config_path]) == config_path
    assert rest == [layer_path, "manifest.json"]
    assert files[layer_path] == packed(LAYER)
    assert json.loads(files["manifest.json"]) == [
        {"Config": config_path, "RepoTags": [f"{repository}:v1"], "Layers": [layer_path, layer_path]}
    ]


def test_the_same_image_is_always_the_same_archive(client, poster, repository):
    poster.two_platforms()

    for options in ((), ("--format", "oci")):
        arguments = ("pull", repository, "--platform", "linux/amd64", *options)
        assert client.run(*arguments).stdout == client.run(*arguments).stdout


@pytest.mark.parametrize(("platform", "hello"), [("linux/amd64", b"amd64\n"), ("arm64", b"arm64\n")])
def test_the_platform_chooses_in_an_index(client, poster, repository, platform, hello):
    poster.two_platforms()

    files = members(client.run("pull", repository, "--platform", platform).stdout)

    (item,) = json.loads(files["manifest.json"])
    assert members(gzip.decompress(files[item["Layers"][1]])) == {"hello": hello}


def test_a_platform_that_is_not_there_lists_those_that_are(client, poster, repository):
    poster.two_platforms()

    done = client.run("pull", repository, "--platform", "linux/s390x", code=3)

    assert done.stdout == b""
    assert done.stderr.decode() == (
        f"registry-client: {repository}:latest is not there for linux/s390x; "
        "choose with --platform from: linux/amd64, linux/arm64/v8\n"
    )


def test_an_oci_archive_holds_everything_byte_for_byte(client, poster, registry, repository):
    index = poster.two_platforms()

    archive = client.run("pull", repository, "--format", "oci").stdout

    assert is_complete(archive)
    files = members(archive)
    assert list(files)[:2] == ["oci-layout", "index.json"]
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == index["digest"]
    blobs = {path: content for path, content in files.items() if path.startswith("blobs/")}
    assert list(blobs) == [f"blobs/sha256/{sha256(content).removeprefix('sha256:')}" for content in blobs.values()]
    assert set(blobs) == {f"blobs/sha256/{digest[7:]}" for digest in all_digests(registry, repository)}


def all_digests(registry: Any, repository: str) -> Iterator[str]:
    index = Reader(registry).image(repository)
    yield index.digest
    for child in index.children:
        yield child.digest
        yield child.manifest["config"]["digest"]
        yield from (layer.digest for layer in child.layers)


@pytest.mark.parametrize("family", ["oci", "docker", "index"])
def test_an_oci_archive_pushed_again_has_the_same_digest(client, poster, registry, repository, tmp_path, family):
    if family == "index":
        digest = poster.two_platforms()["digest"]
    elif family == "docker":
        digest = poster.image([LAYER], tag="latest", family=DOCKER)["digest"]
    else:
        digest = poster.image([LAYER], tag="latest")["digest"]
    client.run("pull", repository, "--format", "oci", "--output", "app.tar")

    assert client.lines("push", f"{repository}/again:v1", "app.tar") == [digest]
    with (tmp_path / "app.tar").open("rb") as archive:
        assert client.run("push", f"{repository}/again:v2", "-", stdin=archive).stdout.decode().strip() == digest
    assert client.lines("push", f"{repository}/again:v3", "-", stdin=(tmp_path / "app.tar").read_bytes()) == [digest]
    assert Reader(registry).image(f"{repository}/again", "v1") == Reader(registry).image(repository)


def test_one_platform_of_an_index_as_an_oci_archive(client, poster, registry, repository):
    poster.two_platforms()

    files = members(client.run("pull", repository, "--format", "oci", "--platform", "linux/arm64").stdout)

    arm64 = Reader(registry).image(repository).children[1]
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == arm64.digest
    assert len([path for path in files if path.startswith("blobs/")]) == 4


def test_a_docker_archive_pushed_again_is_the_same_image(client, poster, registry, repository):
    poster.image([LAYER, layer_tar({"more": os.urandom(3_000_000)})], tag="latest")
    client.run("pull", repository, "-o", "app.tar")

    client.run("push", f"{repository}/again", "app.tar")

    before, after = Reader(registry).image(repository), Reader(registry).image(f"{repository}/again")
    assert (after.config, after.layers) == (before.config, before.layers)


def test_a_raw_file_is_unpacked(client, repository, tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "data.bin").write_bytes(content)
    client.run("push", repository, "data.bin")

    assert client.run("pull", "--unpack", repository).stdout == content
    client.run("pull", "--unpack", repository, "-o", "out.bin")
    assert (tmp_path / "out.bin").read_bytes() == content


def test_a_raw_file_that_an_earlier_version_pushed_is_unpacked(client, poster, repository):
    content = b"called a tar, and none"
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [sha256(content)]}}
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": poster.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [poster.blob(packed(content), "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    poster.manifest(document, tag="latest")

    assert client.run("pull", "--unpack", repository).stdout == content


def test_an_artifacts_file_is_its_layer(client, poster, repository):
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x-data",
        "config": poster.blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [poster.blob(packed(b"stays packed"), "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    poster.manifest(document, tag="latest")

    assert client.run("pull", "--unpack", repository).stdout == packed(b"stays packed")
    assert "--format oci" in client.error("pull", repository, code=1)


def test_several_layers_are_no_file(client, poster, repository):
    poster.image([LAYER, LAYER], tag="latest")

    assert "has 2 layers" in client.error("pull", "--unpack", repository, code=1)


def test_a_layer_that_is_not_what_the_config_says_is_found_out(client, poster, repository):
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [sha256(b"another")]}}
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": poster.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [poster.blob(packed(LAYER), "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    poster.manifest(document, tag="latest")

    assert "is damaged" in client.error("pull", "--unpack", repository, "-o", "out", code=1)
    assert not (client.folder / "out").exists()


def test_what_is_not_there_is_not_found_and_leaves_no_trace(client, repository):
    assert "404" in client.error("pull", repository, "-o", "app.tar", code=3)
    assert list(client.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("pull", "UPPER"), "upper-case"),
        (("pull", "app", "--platform", "a/b/c/d"), "not a platform"),
        (("pull", "app", "--format", "zip"), "'zip' is not one of"),
    ],
)
def test_wrong_usage(client, arguments, reason):
    assert reason in client.error(*arguments, code=2)
