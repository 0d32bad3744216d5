"""`kubectl spool load`: which images its arguments mean, and the archive that a node gets of them."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from registry_spooler.cli.kubectl.pushing.engines import EngineError, EngineImage
from registry_spooler.errors import ArchiveError
from registry_spooler.kubernetes.objects.nodes import Node, _node, pod_manifest
from registry_spooler.kubernetes.transfer.node_archive import LocalLayout, full_name
from registry_spooler.kubernetes.transfer.send import open_source
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import ImageName
from registry_spooler.progress import Progress
from support.images import archives
from support.images.archive_parts import Image, gz


@pytest.mark.parametrize(
    ("word", "image"),
    [
        ("app:v2", EngineImage("", "app:v2")),
        ("registry.example:5000/team/app:v2", EngineImage("", "registry.example:5000/team/app:v2")),
        ("app@sha256:" + "0" * 64, EngineImage("", "app@sha256:" + "0" * 64)),
        ("docker:app", EngineImage("docker", "app")),
        ("podman:team/app:v2", EngineImage("podman", "team/app:v2")),
        ("app.tar", None),
        ("app:1.2.3.tar.gz", None),
        ("app", None),
        ("./app:v2", None),
        ("/images/app:v2.tar", None),
        ("folder:1/app.tar", None),
    ],
)
def test_an_argument_is_an_image_by_its_spelling_alone(word: str, image: EngineImage | None) -> None:
    assert image == EngineImage.parse(word)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("app", "docker.io/library/app:latest"),
        ("team/app:v1", "docker.io/team/app:v1"),
        ("localhost/app:v1", "localhost/app:v1"),
        ("registry.example:5000/a/b", "registry.example:5000/a/b:latest"),
    ],
)
def test_names_are_spelled_as_a_kubelet_spells_them(name: str, full: str) -> None:
    assert full == full_name(ImageName.parse(name))


async def _archive(layout: LocalLayout) -> dict[str, bytes]:
    made = layout.archive()
    content = b"".join([bytes(piece) async for piece in made.pieces])
    assert made.size == len(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def _images(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """The manifests that the index names, every blob of theirs being there and what its name says."""
    for path, content in files.items():
        if path.startswith("blobs/"):
            assert Digest.of(content).hex == path.rpartition("/")[2]
    found = {}
    for entry in json.loads(files["index.json"])["manifests"]:
        manifest = json.loads(files["blobs/sha256/" + entry["digest"].partition(":")[2]])
        parts = manifest.get("manifests") or [manifest["config"], *manifest["layers"]]
        for blob in parts:
            assert len(files["blobs/sha256/" + blob["digest"].partition(":")[2]]) == blob["size"]
        found[entry["annotations"]["io.containerd.image.name"]] = manifest
    return found


@pytest.mark.parametrize("compress", [lambda content: content, gz], ids=["tar", "tgz"])
@pytest.mark.parametrize("make", [archives.docker_legacy, archives.oci_archive, archives.podman_docker])
async def test_any_archive_becomes_one_that_a_runtime_imports(tmp_path: Path, make: Any, compress: Any) -> None:
    (tmp_path / "app.tar").write_bytes(compress(make(Image(names=("registry.example/team/app:v1",)))))
    async with LocalLayout(tmp_path / "blobs") as layout:
        async with open_source(tmp_path / "app.tar") as source:
            names = await layout.add(source, None, Progress())
        images = _images(await _archive(layout))

    assert ("registry.example/team/app:v1",) == names
    assert {"registry.example/team/app:v1"} == set(images)
    assert [] == list((tmp_path / "blobs").iterdir())


async def test_all_images_of_all_archives_go_into_one(tmp_path: Path) -> None:
    (tmp_path / "two.tar").write_bytes(archives.docker_legacy(Image(names=("a:1",)), Image(names=("b:1",))))
    (tmp_path / "one.tar").write_bytes(archives.podman_docker(Image(names=("localhost/c:1",))))
    async with LocalLayout(tmp_path / "blobs") as layout:
        for name in ("two.tar", "one.tar"):
            async with open_source(tmp_path / name) as source:
                await layout.add(source, None, Progress())
        files = await _archive(layout)

    names = {"docker.io/library/a:1", "docker.io/library/b:1", "localhost/c:1"}
    assert names == set(_images(files))
    assert names == {name for item in json.loads(files["manifest.json"]) for name in item["RepoTags"]}


async def test_a_broken_archive_loads_nothing(tmp_path: Path) -> None:
    content = archives.docker_legacy(Image(names=("a:1",)))
    (tmp_path / "cut.tar").write_bytes(content[: len(content) // 2])
    async with LocalLayout(tmp_path / "blobs") as layout, open_source(tmp_path / "cut.tar") as source:
        with pytest.raises(ArchiveError):
            await layout.add(source, None, Progress())


async def test_an_engine_saves_into_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saved.tar").write_bytes(archives.docker_legacy(Image(names=("app:v2",))))
    _engine(tmp_path, f'[ "$1" = image ] || cat {tmp_path}/saved.tar')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    image = EngineImage("docker", "app:v2")
    async with LocalLayout(tmp_path / "blobs") as layout, image.saved() as pipe, open_source(pipe) as source:
        assert ("docker.io/library/app:v2",) == await layout.add(source, image.name, Progress())


async def test_an_engine_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _engine(tmp_path, '[ "$1" = image ] || { echo "no space left" >&2; exit 1; }')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    image = EngineImage("docker", "app:v2")
    with pytest.raises(EngineError, match="docker cannot save 'app:v2': no space left"):
        async with LocalLayout(tmp_path / "blobs") as layout, image.saved() as pipe, open_source(pipe) as source:
            await layout.add(source, image.name, Progress())


async def test_an_image_that_no_engine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _engine(tmp_path, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(EngineError, match=r"has no image 'app:v2'; to push a file of that name, write \./app:v2"):
        async with EngineImage("docker", "app:v2").saved():
            pass


def _engine(folder: Path, script: str) -> None:
    (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker").chmod(0o755)


def _described(**info: str) -> Node:
    images = [
        {"names": ["big@sha256:1", "docker.io/library/big:1"], "sizeBytes": 9000},
        {"names": ["<none>@<none>"], "sizeBytes": 1},
        {"names": ["registry.k8s.io/pause@sha256:2", "registry.k8s.io/pause:3.10"], "sizeBytes": 700},
        {"names": ["small:1"], "sizeBytes": 5},
    ]
    return _node({"metadata": {"name": "n1"}, "status": {"images": images, "nodeInfo": info}})


def test_the_pod_is_made_of_what_the_node_has() -> None:
    node = _described(containerRuntimeVersion="containerd://2.1", osImage="Debian", kubeletVersion="v1.34.4+k3s1")

    assert "containerd" == node.runtime
    assert "k3s/agent/images" in node.instead
    pod = pod_manifest(node)["spec"]
    assert "n1" == pod["nodeName"]
    assert "registry.k8s.io/pause:3.10" == pod["containers"][0]["image"]
    assert "Never" == pod["containers"][0]["imagePullPolicy"]
    assert [{"operator": "Exists"}] == pod["tolerations"]


@pytest.mark.parametrize(
    ("info", "advice"),
    [
        ({"osImage": "Talos (v1.11.0)", "containerRuntimeVersion": "containerd://2"}, "Talos imports no files"),
        ({"osImage": "Ubuntu 24.04", "containerRuntimeVersion": "docker://28"}, "docker load -i FILE"),
        ({"osImage": "Fedora CoreOS", "containerRuntimeVersion": "cri-o://1.33"}, "podman load -i FILE"),
        ({"osImage": "Debian", "containerRuntimeVersion": "containerd://2"}, "ctr -n k8s.io images import FILE"),
    ],
)
def test_what_to_type_on_the_node_itself(info: dict[str, str], advice: str) -> None:
    assert advice in _described(**info).instead
