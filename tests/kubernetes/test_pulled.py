"""What a pod sends for a pull, checked here: the real thing passes, and nothing else does."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_spooler.client import SpoolerClient
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import NotTheImage
from registry_spooler.kubernetes.redial import Redial
from registry_spooler.kubernetes.remote_session import PodSession
from registry_spooler.kubernetes.transfer.verified_archive import NotAsPulled, PulledArchive
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.layout_writer import TAR_END, tar_header, tar_padding
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.output import OutputFailed
from support.cluster.apiserver import ApiServer
from support.images import archives
from support.images.archive_parts import Image, big_layer, layer
from support.registries.running_registry import RunningRegistry

SELECTOR = "app.kubernetes.io/name=registry-spooler"
REFERENCE = Reference("app", "v1")
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}).encode()
LAYER = os.urandom(3000)
LONG = os.urandom(300)


def hexdigest(content: bytes) -> str:
    return Digest.of(content).hex


def packed(*files: tuple[str, bytes], end: bytes = TAR_END) -> bytes:
    members = (tar_header(path, len(content)) + content + tar_padding(len(content)) for path, content in files)
    return b"".join(members) + end


def docker(
    *, config: bytes = CONFIG, layer_content: bytes = LAYER, name: str = "app:v1", layers: tuple[str, ...] | None = None
) -> list[tuple[str, bytes]]:
    layer_name = f"{hexdigest(LAYER)}.tar.gz"
    item = {
        "Config": f"sha256:{hexdigest(CONFIG)}",
        "RepoTags": [name],
        "Layers": list(layers if layers is not None else (layer_name,)),
    }
    return [
        (f"sha256:{hexdigest(CONFIG)}", config),
        (layer_name, layer_content),
        ("manifest.json", json.dumps([item]).encode()),
    ]


def described(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(CONFIG, "application/vnd.oci.image.config.v1+json"),
        "layers": [
            described(LAYER, "application/vnd.oci.image.layer.v1.tar+gzip"),
            {
                **described(LONG, "application/vnd.oci.image.layer.v1.tar+gzip"),
                "digest": str(Digest.of(LONG, "sha512")),
            },
        ],
    }
).encode()


SIGNATURE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(CONFIG, "application/vnd.oci.image.config.v1+json"),
        "layers": [],
    }
).encode()


def layout(*, name: str = "app:v1", without: bytes = b"", speaks_of: str = "") -> list[tuple[str, bytes]]:
    entry = {
        **described(MANIFEST, "application/vnd.oci.image.manifest.v1+json"),
        "annotations": {"io.containerd.image.name": name},
    }
    entries = [entry]
    blobs = [content for content in (MANIFEST, CONFIG, LAYER) if content != without]
    if speaks_of:
        annotations = {"io.containerd.manifest.subject": speaks_of}
        entries.append(
            {**described(SIGNATURE, "application/vnd.oci.image.manifest.v1+json"), "annotations": annotations}
        )
        blobs.append(SIGNATURE)
    return [
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": entries}).encode()),
        *((f"blobs/sha256/{hexdigest(content)}", content) for content in blobs),
        (f"blobs/sha512/{Digest.of(LONG, 'sha512').hex}", LONG),
    ]


def read(content: bytes, piece: int = 1000) -> PulledArchive:
    archive = PulledArchive(REFERENCE)
    for at in range(0, len(content), piece):
        archive.feed(content[at : at + piece])
    return archive


@pytest.mark.parametrize("piece", [1, 511, 512, 513, 1 << 20])
def test_what_is_whole(piece: int) -> None:
    pulled = read(packed(*docker()), piece).finish()
    assert (Digest.of(CONFIG), (Digest.of(LAYER),)) == (pulled.config, pulled.layers)
    assert {Digest.of(MANIFEST)} == read(packed(*layout()), piece).finish().images


def test_what_speaks_of_the_image() -> None:
    pulled = read(packed(*layout(speaks_of=str(Digest.of(MANIFEST))))).finish()
    assert ({Digest.of(MANIFEST)}, {Digest.of(SIGNATURE)}) == (pulled.images, pulled.referrers)


LIES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "lies": lambda: b"lies",
    "zeros": lambda: bytes(4096),
    "no end": lambda: packed(*docker(), end=b""),
    "half an end": lambda: packed(*docker(), end=bytes(512)),
    "more behind the end": lambda: packed(*docker()) + packed(*docker()),
    "another config": lambda: packed(*docker(config=CONFIG[:-1] + b" ")),
    "another layer": lambda: packed(*docker(layer_content=LAYER[:-1] + b"x")),
    "a short layer": lambda: packed(*docker(layer_content=LAYER[:-1])),
    "another name": lambda: packed(*docker(name="other:v1")),
    "a layer less": lambda: packed(*docker(layers=())),
    "a layer that is not there": lambda: packed(*docker(layers=("0" * 64 + ".tar",))),
    "no manifest.json": lambda: packed(*docker()[:-1]),
    "no config": lambda: packed(*docker()[1:]),
    "a member twice": lambda: packed(*docker(), docker()[0]),
    "a strange member": lambda: packed(*docker(), ("../escape", b"")),
    "a manifest less": lambda: packed(*layout(without=MANIFEST)),
    "a config less": lambda: packed(*layout(without=CONFIG)),
    "a blob less": lambda: packed(*layout(without=LAYER)),
    "a layout's other name": lambda: packed(*layout(name="other:v1")),
    "what speaks of another image": lambda: packed(*layout(speaks_of=str(Digest.of(LAYER)))),
    "what speaks of nothing": lambda: packed(*layout(speaks_of="nothing")),
    "no index": lambda: packed(layout()[0], *layout()[2:]),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_not(lie: str) -> None:
    with pytest.raises(NotAsPulled):
        read(LIES[lie]()).finish()


def test_every_cut_is_noticed() -> None:
    content = packed(*docker())
    for length in range(0, len(content), 100):
        with pytest.raises(NotAsPulled):
            read(content[:length]).finish()


def test_links_are_no_part_of_a_pull() -> None:
    member = tarfile.TarInfo("manifest.json")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(NotAsPulled, match="no file"):
        read(member.tobuf() + TAR_END).finish()


@pytest.fixture
async def client(cluster: Cluster, api: ApiServer, registry: RunningRegistry) -> SpoolerClient:
    api.registry = registry.url
    return SpoolerClient(PodSession(cluster, SELECTOR, "spooler", redial=Redial(first_pause_seconds=0.01)))


@pytest.mark.parametrize("layout_name", ["docker", "oci"])
async def test_pulled_by_tag_and_by_digest(
    client: SpoolerClient, repository: str, tmp_path: Path, layout_name: str
) -> None:
    images = [
        Image(layers=(layer(name), big_layer(300_000, seed=7)), platform=name)
        for name in ("linux/amd64", "linux/arm64")
    ]
    (tmp_path / "app.tar").write_bytes(archives.flat_index(*images))
    pushed = await client.push(tmp_path / "app.tar", Reference(repository, "1"))
    for reference in (Reference(repository, "1"), Reference(repository, None, pushed.digest)):
        options = {"platform": "linux/arm64", "archive_format": layout_name}
        await client.pull(reference, tmp_path / "pulled.tar", **options)
        assert tarfile.is_tarfile(tmp_path / "pulled.tar")


def lying(api: ApiServer, folder: Path, answer: bytes) -> None:
    """Let the pod's `pull` answer with this, and say that all is well."""
    (folder / "programs").mkdir()
    (folder / "answer").write_bytes(answer)
    program = folder / "programs" / "registry-client"
    word = json.dumps({"done": True, "stdout_bytes": len(answer), "code": 0})
    program.write_text(f"#!/bin/sh\ncat {folder}/answer\necho '{word}' >&2\n")
    program.chmod(0o755)
    api.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("lie", ["lies", "another layer", "no end", "another name", "what speaks of another image"])
async def test_no_lie_becomes_a_file(client: SpoolerClient, api: ApiServer, tmp_path: Path, lie: str) -> None:
    lying(api, tmp_path, LIES[lie]())
    with pytest.raises(NotTheImage, match="do not use what came of it"):
        await client.pull(REFERENCE, tmp_path / "pulled.tar")
    assert [] == list(tmp_path.glob("*pulled.tar*"))
    with (tmp_path / "pipe").open("wb") as file, pytest.raises(NotTheImage):
        await client.pull(REFERENCE, file)


@pytest.mark.parametrize("lie", ["lies", "another layer", "no end", "another name"])
async def test_no_lie_is_unpacked(client: SpoolerClient, api: ApiServer, tmp_path: Path, lie: str) -> None:
    lying(api, tmp_path, LIES[lie]())
    with pytest.raises(NotTheImage, match="do not use what came of it"):
        await client.pull(REFERENCE, tmp_path / "pulled.txt", unpack=True)
    with (tmp_path / "pipe").open("wb") as file, pytest.raises(NotTheImage):
        await client.pull(REFERENCE, file, unpack=True)
    assert [] == list(tmp_path.glob("*pulled.txt*"))
    assert b"" == (tmp_path / "pipe").read_bytes()


async def test_another_image_than_the_digest_says(client: SpoolerClient, api: ApiServer, tmp_path: Path) -> None:
    lying(api, tmp_path, packed(*docker()))
    await client.pull(REFERENCE, tmp_path / "by-tag.tar")
    with pytest.raises(NotTheImage, match="its manifest is not"):
        await client.pull(Reference("app", None, Digest.of(MANIFEST)), tmp_path / "pulled.tar")
    assert not (tmp_path / "pulled.tar").exists()


async def test_the_file_that_cannot_be_written_is_named(client: SpoolerClient, api: ApiServer, tmp_path: Path) -> None:
    lying(api, tmp_path, packed(*docker()))
    (tmp_path / "folder").mkdir()
    for target, reason in (
        (tmp_path / "nowhere" / "x.tar", "No such file or directory"),
        (tmp_path / "folder", "Is a directory"),
    ):
        with pytest.raises(OutputFailed) as caught:
            await client.pull(REFERENCE, target)
        assert f"cannot write {target}: {reason}" == str(caught.value)
    assert [] == list(tmp_path.glob(".folder-*"))
