"""The well-known tools load what `pull` wrote, straight from the pipe where they can."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.images.posted import layer_tar
from support.registries.verify import Reader

TOOL_TIMEOUT_SECONDS = 120.0
LAYERS = [layer_tar({"hello": b"hello\n"}), layer_tar({"data": os.urandom(200_000)})]


@dataclass(frozen=True)
class Tools:
    """podman, buildah and skopeo with an image storage of the test's own."""

    folder: Path

    def run(self, tool: str, *arguments: str, stdin: bytes = b"") -> str:
        storage = [
            "--root",
            str(self.folder / "root"),
            "--runroot",
            str(self.folder / "run"),
            "--storage-driver",
            "vfs",
        ]
        options = ["--insecure-policy"] if tool == "skopeo" else storage
        done = subprocess.run(
            [tool, *options, *arguments],
            input=stdin,
            capture_output=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder), "TMPDIR": str(self.folder)},
            timeout=TOOL_TIMEOUT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def diff_ids(self, tool: str, image: str) -> list[str]:
        inspect = ("image", "inspect") if tool == "podman" else ("inspect", "--type", "image")
        document = json.loads(self.run(tool, *inspect, image))
        return list(document[0]["RootFS"]["Layers"] if tool == "podman" else document["OCIv1"]["rootfs"]["diff_ids"])


@pytest.fixture
def tools():
    # Not pytest's own folder: podman takes no run root of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="tools-") as folder:
        yield Tools(Path(folder))


@pytest.fixture(params=["docker", "oci"])
def pulled(request, client, poster, repository):
    """An archive of an image with two layers, its format, and the image's name."""
    poster.image(LAYERS, tag="v1")
    client.run("pull", "--format", request.param, f"{repository}:v1", "-o", "app.tar")
    return client.folder / "app.tar", request.param


def test_podman_loads_it(tools, pulled, registry, repository):
    path, _ = pulled

    assert f"{repository}:v1" in tools.run("podman", "load", stdin=path.read_bytes())
    assert tools.diff_ids("podman", f"{repository}:v1") == list(Reader(registry).image(repository, "v1").diff_ids)


def test_buildah_pulls_it(tools, pulled, registry, repository):
    path, archive_format = pulled

    identity = tools.run("buildah", "pull", "--quiet", f"{archive_format}-archive:{path}").strip()

    assert tools.diff_ids("buildah", identity) == list(Reader(registry).image(repository, "v1").diff_ids)


def test_skopeo_reads_it(tools, pulled, registry, repository):
    path, archive_format = pulled

    image = json.loads(tools.run("skopeo", "inspect", "--config", f"{archive_format}-archive:{path}"))

    assert image["rootfs"]["diff_ids"] == list(Reader(registry).image(repository, "v1").diff_ids)


def test_skopeo_copies_every_platform_unchanged(tools, client, poster, repository, tmp_path):
    index = poster.two_platforms()
    client.run("pull", "--format", "oci", repository, "-o", "app.tar")

    tools.run("skopeo", "copy", "--all", f"oci-archive:{tmp_path}/app.tar", f"dir:{tmp_path}/copy")

    digest = tools.run("skopeo", "manifest-digest", str(tmp_path / "copy" / "manifest.json")).strip()
    assert digest == index["digest"]


def test_podman_loads_the_image_for_this_machine(tools, client, poster, repository):
    poster.two_platforms()

    archive = client.run("pull", repository).stdout

    assert f"{repository}:latest" in tools.run("podman", "load", stdin=archive)
