"""The registry's side of a delta: which layer is offered, and what is stored of what a recipe makes."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from delta.layers import File, recipe_of, tar, written
from registry_spooler.aio import in_thread
from registry_spooler.archive.compression import Compression, Deflater
from registry_spooler.delta.base import LayerStep
from registry_spooler.delta.signature import Signature, signature_of
from registry_spooler.errors import DeltaError, NotFound
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.push import delta_bases
from registry_spooler.push.delta_bases import Base, SignatureStore, find_base
from registry_spooler.push.delta_rebuild import LayerOrder, ScratchFile, rebuild_layer, scratch_folder
from registry_spooler.registry.registry_client import RegistryClient
from support.images import archives
from support.images.archive_parts import Image, dumps, gz, hexdigest, layer
from support.images.posted import Poster
from support.registries.running_registry import RunningRegistry


@pytest.fixture
async def client(registry: RunningRegistry) -> AsyncIterator[RegistryClient]:
    async with RegistryClient(registry.url) as opened:
        yield opened


def plain(time: int, *more: File) -> bytes:
    return tar([*(File(f"{at}", hexdigest(bytes([at])).encode() * 40, time) for at in range(200)), *more])


def stored(content: bytes, compression: Compression = Compression.GZIP) -> bytes:
    """A layer as it is compressed here."""
    deflater = Deflater(compression)
    return deflater.deflate(content) + deflater.finish()


async def push(client: RegistryClient, repository: str, blob: bytes) -> Digest:
    return await client.put_bytes(repository, blob)


def order(repository: str, base: Digest, layer: bytes, **changed: Any) -> LayerOrder:
    blob = stored(layer)
    values: dict[str, Any] = {
        "repository": repository,
        "base": base,
        "digest": Digest.of(blob),
        "size": len(blob),
        "diff_id": Digest.of(layer),
        "compression": Compression.GZIP,
    }
    return LayerOrder(**{**values, **changed})


OLD, NEW = plain(5), plain(6, File("new", b"new"))


def recipe() -> bytes:
    made = recipe_of(OLD, NEW)
    assert made is not None
    return written(made)


async def rebuilt(client: RegistryClient, layer: LayerOrder, content: bytes) -> Digest:
    return (await rebuild_layer(client, layer, io.BytesIO(content), io.BytesIO(), Progress())).digest


@pytest.mark.parametrize("compress", [gz, bytes])
async def test_a_layer_is_made_and_stored(client: RegistryClient, repository: str, compress: Any) -> None:
    base = await push(client, repository, compress(OLD))
    wanted = order(repository, base, NEW)
    assert await rebuilt(client, wanted, recipe()) == wanted.digest
    assert await client.get_bytes(repository, wanted.digest, limit_bytes=1 << 20) == stored(NEW)


async def test_what_comes_out_of_order_is_read_first(client: RegistryClient, repository: str) -> None:
    files = [File(f"{at}", hexdigest(bytes([at])).encode() * 40) for at in range(50)]
    layer = tar([*files[25:], *files[:25]])
    made = recipe_of(tar(files), layer)
    assert made is not None
    base = await push(client, repository, gz(tar(files)))
    wanted = order(repository, base, layer)
    assert await rebuilt(client, wanted, written(made)) == wanted.digest


@pytest.mark.parametrize(
    "changed",
    [{"digest": Digest.of(b"x")}, {"diff_id": Digest.of(b"x")}, {"size": 5}, {"compression": Compression.ZSTD}],
)
async def test_another_layer_than_was_wanted_is_not_stored(
    client: RegistryClient, repository: str, changed: dict[str, Any]
) -> None:
    base = await push(client, repository, gz(OLD))
    wanted = order(repository, base, NEW, **changed)
    with pytest.raises(DeltaError, match="another layer"):
        await rebuilt(client, wanted, recipe())
    for digest in (wanted.digest, Digest.of(stored(NEW))):
        assert await client.blob_exists(repository, digest) is None


async def test_what_cannot_be_made_is_said(client: RegistryClient, repository: str) -> None:
    base = await push(client, repository, gz(OLD))
    with pytest.raises(NotFound):
        await rebuilt(client, order(repository, Digest.of(b"gone"), NEW), recipe())
    with pytest.raises(DeltaError):
        await rebuilt(client, order(repository, base, NEW), recipe()[:-20])
    with pytest.raises(DeltaError, match="another version"):
        await rebuilt(client, order(repository, base, NEW), b"hello")
    cut = await push(client, repository, gz(OLD)[:300])
    with pytest.raises(DeltaError, match="base"):
        await rebuilt(client, order(repository, cut, NEW), recipe())


def test_a_delta_leaves_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".work").mkdir()
    with scratch_folder(tmp_path) as folder, ScratchFile(folder) as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"
        assert list((tmp_path / ".work").iterdir()) == []
        monkeypatch.setattr("registry_spooler.push.delta_rebuild.ROOM_KEPT_BYTES", 1 << 60)
        with pytest.raises(DeltaError, match="no room"):
            file.write(bytes(5 << 20))
    (tmp_path / ".work").rmdir()
    (tmp_path / ".work").symlink_to("/etc")
    with scratch_folder(tmp_path) as folder:
        assert folder is None


class Images:
    """Images of one large layer in the test's repository."""

    def __init__(self, poster: Poster, client: RegistryClient, repository: str) -> None:
        self.poster = poster
        self.client = client
        self.repository = repository
        self.manifests: dict[str, dict[str, Any]] = {}

    def post(self, content: bytes, *, tag: str, created: str = "2024-01-01T00:00:00Z", step: str = "RUN build") -> str:
        """Return the digest of the layer."""
        image = Image(layers=(content,))
        config_document = {**json.loads(image.config), "created": created, "history": [{"created_by": step}]}
        layer = self.poster.blob(content, "application/vnd.oci.image.layer.v1.tar")
        config = self.poster.blob(dumps(config_document), "application/vnd.oci.image.config.v1+json")
        document = {"schemaVersion": 2, "mediaType": archives.MANIFEST, "config": config, "layers": [layer]}
        self.manifests[tag] = self.poster.manifest(document, tag=tag)
        return str(layer["digest"])

    async def base(self, tag: str, store: SignatureStore, *, step: str = "RUN build") -> Base | None:
        wanted = LayerStep(position=0, created_by=step, platform="linux/amd64")
        return await find_base(self.client, Reference(self.repository, tag), wanted, store)


@pytest.fixture
def images(registry: RunningRegistry, client: RegistryClient, repository: str) -> Images:
    return Images(Poster(registry, repository), client, repository)


async def test_a_base_is_offered(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tag, or else the newest by its own word; its signature is kept, and small layers have none."""
    store = SignatureStore(tmp_path / ".state" / "signatures")
    assert await images.base("1", store) is None
    contents = [plain(time) for time in range(3)]
    digests = [
        images.post(content, tag=tag, created=f"2024-01-0{day}T00:00:00Z")
        for content, tag, day in zip(contents, "123", (1, 3, 2), strict=True)
    ]
    found = await images.base("3", store)
    assert found is not None
    assert (str(found.digest), found.size) == (digests[2], len(contents[2]))
    assert Signature.decode(found.signature) == signature_of([contents[2]])
    assert await in_thread(store.read, found.digest) == found.signature
    newest = await images.base("4", store)
    assert newest is not None
    assert str(newest.digest) == digests[1]
    monkeypatch.setattr(delta_bases, "SIGNATURES_MAX", 1)
    await in_thread(store.write, Digest.of(b"another"), b"signature")
    assert len(list((tmp_path / ".state" / "signatures").iterdir())) == 2
    images.post(layer("small"), tag="5")
    assert await images.base("5", store) is None


async def test_an_index_has_a_base_for_each_platform(images: Images) -> None:
    poster, store = images.poster, SignatureStore(None)
    layers = {}
    for time, platform in enumerate(("arm64", "amd64")):
        layers[platform] = images.post(plain(time), tag=platform)
    children = [
        {**images.manifests[platform], "platform": {"os": "linux", "architecture": platform}} for platform in layers
    ]
    poster.index(children, tag="both")
    found = await images.base("both", store)
    assert found is not None
    assert str(found.digest) == layers["amd64"]


async def test_what_is_asked_for_at_once_is_made_once(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Counted(delta_bases.SignatureBuilder):
        def finish(self) -> Signature:
            made.append(self)
            return super().finish()

    monkeypatch.setattr(delta_bases, "SignatureBuilder", Counted)
    store = SignatureStore(tmp_path / ".state" / "signatures")
    images.post(OLD, tag="1")
    one, other = await asyncio.gather(images.base("1", store), images.base("1", store))
    assert one == other
    assert one is not None
    assert len(made) == 1
