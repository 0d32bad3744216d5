"""What speaks of an image comes with it in a pull, and goes with it again in the next push."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from support.images import signed
from support.images.archive_parts import Image, hexdigest
from support.images.archives import INDEX, MANIFEST, descriptor, oci_manifest
from support.images.signed import ARM
from support.programs.command_client import Client
from support.registries.playedregistry import running_registry as played_registry
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

APP = Image(names=("registry.example/app:1",))
AMD, ARM_MANIFEST = oci_manifest(APP), oci_manifest(ARM)
INDEX_OF_BOTH = signed.index_of(APP, ARM)


def tag(subject: bytes, suffix: str = "") -> str:
    return f"sha256-{hexdigest(subject)}{suffix}"


def signed_archive(root: bytes) -> bytes:
    """An image or the index of both, with everything that can speak of it, of a platform, and of an SBOM."""
    kind = "dev.cosignproject.cosign/"
    platform = ARM_MANIFEST if root == INDEX_OF_BOTH else root
    bundle, of_platform = signed.bundle(root), signed.bundle(platform, content=b"of the platform")
    of_bundle = signed.bundle(bundle.manifest, content=b"countersigned")
    attached = {
        f"{kind}sigs": (root, signed.signature(root)),
        f"{kind}atts": (platform, signed.attestation(platform)),
        f"{kind}sboms": (platform, signed.sbom()),
    }
    listed = [descriptor(INDEX if root == INDEX_OF_BOTH else MANIFEST, root)]
    listed += [
        one.listed(kind=name, **{signed.CONTAINERD_SUBJECT: f"sha256:{hexdigest(subject)}"})
        for name, (subject, one) in attached.items()
    ]
    bundles = [bundle, of_bundle, *([of_platform] if platform != root else [])]
    listed += [one.listed() for one in bundles]
    every = [*(one for _, one in attached.values()), *bundles]
    index = INDEX_OF_BOTH if root == INDEX_OF_BOTH else b""
    return signed.layout_of(listed, APP, ARM, index=index, attached=every)


def everything(reader: Reader, repository: str) -> dict[str, tuple[bytes, list[bytes]]]:
    """By tag: what it points to, and what that lists."""
    found = {}
    for name in reader.tags(repository):
        image = reader.image(repository, name)
        children = sorted(child.content for child in image.children)
        # An index of referrers is written by clients, in whatever order.
        found[name] = (b"" if name.startswith("sha256-") and children else image.content, children)
    return found


def index_of(archive: bytes) -> list[dict[str, Any]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        document = json.load(tar.extractfile("index.json"))
    return document["manifests"]


@pytest.mark.parametrize("root", [AMD, INDEX_OF_BOTH], ids=["one platform", "two platforms"])
def test_pulled_and_pushed_elsewhere_nothing_is_lost(
    client: Client,
    registry: RunningRegistry,
    make_registry: Callable[..., RunningRegistry],
    repository: str,
    tmp_path: Path,
    root: bytes,
) -> None:
    empty = make_registry()
    client.run("push", f"{repository}:v1", "-", stdin=signed_archive(root))
    done = client.run("pull", f"{repository}:v1", "--format", "oci", "-o", "app.tar")
    assert done.stderr == b""
    elsewhere = Client(empty, tmp_path)

    receipt = elsewhere.json("push", "--json", f"{repository}:v1", "app.tar")

    before = everything(Reader(registry), repository)
    names = {"v1", tag(root), tag(root, ".sig"), *(name for name in before if name.endswith((".att", ".sbom")))}
    assert names < before.keys()
    assert everything(Reader(empty), repository) == before
    assert (receipt["referrers"], receipt["left_out"]) == (6 if root == INDEX_OF_BOTH else 5, [])
    assert elsewhere.run("pull", f"{repository}:v1", "--format", "oci").stdout == (tmp_path / "app.tar").read_bytes()


def test_what_is_found_in_several_places_is_found_there_again(
    client: Client,
    registry: RunningRegistry,
    make_registry: Callable[..., RunningRegistry],
    repository: str,
    tmp_path: Path,
) -> None:
    """An SBOM of both platforms, and a signature that has a subject and a tag."""
    empty = make_registry()
    sbom, signature = signed.sbom(), signed.bundle(INDEX_OF_BOTH, kind=INDEX)
    listed = [
        descriptor(INDEX, INDEX_OF_BOTH),
        *(sbom.listed(**{signed.CONTAINERD_SUBJECT: f"sha256:{hexdigest(one)}"}) for one in (AMD, ARM_MANIFEST)),
        signature.listed(kind="dev.cosignproject.cosign/sigs"),
    ]
    archive = signed.layout_of(listed, APP, ARM, index=INDEX_OF_BOTH, attached=[sbom, signature])
    client.run("push", f"{repository}:v1", "-", stdin=archive)
    client.run("pull", f"{repository}:v1", "--format", "oci", "-o", "app.tar")

    receipt = Client(empty, tmp_path).json("push", "--json", f"{repository}:v1", "app.tar")

    before = everything(Reader(registry), repository)
    tags = [tag(AMD, ".sbom"), tag(ARM_MANIFEST, ".sbom"), tag(INDEX_OF_BOTH, ".sig"), tag(INDEX_OF_BOTH)]
    assert before.keys() == {"v1", *tags}
    assert everything(Reader(empty), repository) == before
    assert (receipt["referrers"], receipt["left_out"]) == (2, [])


def test_one_platform_brings_what_speaks_of_it(client: Client, repository: str) -> None:
    client.run("push", repository, "-", stdin=signed_archive(INDEX_OF_BOTH))

    archive = client.run("pull", repository, "--format", "oci", "--platform", "linux/arm64").stdout

    root, *others = index_of(archive)
    subject = f"sha256:{hexdigest(ARM_MANIFEST)}"
    assert root["digest"] == subject
    assert {entry["annotations"][signed.CONTAINERD_SUBJECT] for entry in others} == {subject}
    kinds = [entry["annotations"].get("kind", "").rpartition("/")[2] for entry in others]
    assert kinds == ["", "atts", "sboms"]


def test_they_can_be_left_out(client: Client, repository: str) -> None:
    client.run("push", repository, "-", stdin=signed_archive(AMD))

    archive = client.run("pull", repository, "--format", "oci", "--no-referrers").stdout

    assert [entry["digest"] for entry in index_of(archive)] == [f"sha256:{hexdigest(AMD)}"]
    assert b"simplesigning" not in archive


def test_a_signature_without_its_blob_is_left_out(client: Client, registry: RunningRegistry, repository: str) -> None:
    client.run("push", repository, "-", stdin=signed.cosign_save(APP, {"sigs": (one := signed.signature(AMD))}))
    lost = hexdigest(one.blobs[1])
    (registry.storage / f"docker/registry/v2/repositories/{repository}/_layers/sha256/{lost}/link").unlink()

    done = client.run("pull", repository, "--format", "oci")

    assert len(index_of(done.stdout)) == 1
    assert done.stderr.decode() == (
        f"registry-client: {one.digest}, which speaks of the image, is left out: the registry lacks its sha256:{lost}\n"
    )


ANSWERS: dict[str, Callable[[], web.Response]] = {
    "404": lambda: web.Response(status=404),
    "404 as a page": lambda: web.Response(status=404, text="<html>", content_type="text/html"),
    "an empty index": lambda: web.json_response({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
    "a page": lambda: web.Response(text="<html>", content_type="text/html"),
    "400": lambda: web.json_response({"errors": [{"code": "UNSUPPORTED"}]}, status=400),
    "a list": lambda: web.json_response([]),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_what_a_registry_may_answer_to_the_question_for_referrers(tmp_path: Path, answer: str) -> None:
    """What can be found without it comes; a pull fails for none of it."""

    def gate(request: web.Request) -> web.StreamResponse | None:
        return ANSWERS[answer]() if "/referrers/" in request.path else None

    async with played_registry(gate=gate) as played:
        client = Client(played, tmp_path)
        await asyncio.to_thread(client.run, "push", "app", "-", stdin=signed_archive(INDEX_OF_BOTH))
        done = await asyncio.to_thread(client.run, "pull", "app", "--format", "oci")

    assert len(index_of(done.stdout)) == 1 + 6
    lines = done.stderr.decode().splitlines()
    if answer in ("404", "404 as a page", "an empty index"):
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(
            "registry-client: not all that speaks of the image (signatures, SBOMs) can be asked for: "
        )


async def test_lists_in_pages(tmp_path: Path) -> None:
    bundles = [signed.bundle(AMD, content=content) for content in (b"one", b"two", b"three")]

    def gate(request: web.Request) -> web.StreamResponse | None:
        if "/referrers/" not in request.path:
            return None
        if not request.path.endswith(hexdigest(AMD)):
            return ANSWERS["an empty index"]()
        page = int(request.query.get("page", 0))
        headers = {"Link": f'<{request.path}?page={page + 1}>; rel="next"'} if page < 2 else {}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [bundles[page].listed()]}
        return web.json_response(index, headers=headers)

    listed = [descriptor(MANIFEST, AMD), *(one.listed() for one in bundles)]
    async with played_registry(gate=gate) as played:
        client = Client(played, tmp_path)
        tar = signed.layout_of(listed, APP, attached=bundles)
        await asyncio.to_thread(client.run, "push", "app", "-", stdin=tar)
        done = await asyncio.to_thread(client.run, "pull", "app", "--format", "oci")

    assert [entry["digest"] for entry in index_of(done.stdout)[1:]] == [one.digest for one in bundles]
