"""The fixtures themselves: a guard that never fires, or a verifier that accepts everything, would show nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import blockbuster
import pytest

from registry_spooler import aio as threads
from support.registries.verify import Reader, skopeo_inspect

FILE = b"hello\n"
LAYER = gzip.compress(FILE, mtime=0)
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def post_blob(url: str, repository: str, content: bytes) -> dict[str, Any]:
    start = urllib.request.Request(f"{url}/v2/{repository}/blobs/uploads/", method="POST")
    with urllib.request.urlopen(start) as response:
        location = response.headers["Location"]
    end = urllib.request.Request(f"{location}&digest={sha256(content)}", data=content, method="PUT")
    end.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(end) as response:
        assert response.status == 201
    return {"digest": sha256(content), "size": len(content)}


def post_image(url: str, repository: str, *, diff_id: str) -> str:
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, **post_blob(url, repository, json.dumps(config).encode())},
        "layers": [{"mediaType": LAYER_TYPE, **post_blob(url, repository, LAYER)}],
    }
    content = json.dumps(manifest).encode()
    put = urllib.request.Request(f"{url}/v2/{repository}/manifests/latest", data=content, method="PUT")
    put.add_header("Content-Type", MANIFEST_TYPE)
    with urllib.request.urlopen(put) as response:
        assert response.status == 201
    return sha256(content)


def test_the_verifier_reads_an_image_whole(registry, repository):
    digest = post_image(registry.url, repository, diff_id=sha256(FILE))

    reader = Reader(registry)
    image = reader.image(repository)

    assert image.digest == digest
    assert image.diff_ids == (sha256(FILE),)
    assert reader.unpacked(repository, image.layers[0]) == FILE
    assert reader.tags(repository) == ["latest"]
    assert skopeo_inspect(registry, repository)["Digest"] == digest


def test_the_verifier_refuses_a_wrong_diff_id(registry, repository):
    post_image(registry.url, repository, diff_id=sha256(b"another file"))

    with pytest.raises(AssertionError):
        Reader(registry).image(repository)


def test_a_registry_keeps_port_and_images_over_a_restart(make_registry, repository):
    registry = make_registry()
    digest = post_image(registry.url, repository, diff_id=sha256(FILE))
    port = registry.port

    registry.stop()
    assert not registry.running
    registry.start()

    assert registry.port == port
    assert Reader(registry).image(repository).digest == digest


def test_a_registry_with_tls_and_logins(make_registry):
    registry = make_registry(tls=True, htpasswd={"ada": "lovelace"})

    assert Reader(registry, username="ada", password="lovelace").repositories() == []
    with pytest.raises(urllib.error.HTTPError) as refusal:
        Reader(registry).repositories()
    assert refusal.value.code == 401
    refusal.value.close()


def test_a_registry_that_cannot_start_says_why(make_registry):
    with pytest.raises(RuntimeError, match="did not start") as failure:
        make_registry(inmemory=True, extra={"storage": {"inmemory": None, "no-such-driver": {}}})
    assert "no-such-driver" in str(failure.value.__cause__)


async def test_the_project_must_not_block_the_loop(blocking_calls, tmp_path):
    blocking = compile_as_project("import os\ndef call(path): return os.open(path, os.O_RDONLY)\n")

    with pytest.raises(blockbuster.BlockingError):
        blocking["call"](tmp_path)
    descriptor = await threads.in_thread(blocking["call"], tmp_path)
    os.close(descriptor)


async def test_the_tests_may_block_the_loop(tmp_path):
    (tmp_path / "file").write_text("text")

    assert (tmp_path / "file").read_text() == "text"


def compile_as_project(source: str) -> dict[str, Any]:
    """Run code as though it stood in a module of the project."""
    names: dict[str, Any] = {}
    exec(compile(source, str(Path(threads.__file__).with_name("example.py")), "exec"), names)  # noqa: S102 - the source is the tests' own
    return names
