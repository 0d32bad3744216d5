"""The client against docker-registry (distribution 2.8)."""

from __future__ import annotations

import anyio
import orjson
import pytest

from registry_spooler.errors import ArchiveError, DeletesDisabled, NotFound, RegistryUnreachable
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import EMPTY_JSON, Digest
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.registry import tags as deletion
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.manifests import put_manifest
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.vendors import UploadForm, UploadOptions
from support.registries.faultproxy import running_proxy
from support.registries.memory_blobs import Blob, MemoryReader, noise

MIB = 1 << 20
KINDS = [
    pytest.param(True, True, id="rewindable"),
    pytest.param(False, True, id="once, size known"),
    pytest.param(False, False, id="once, size unknown"),
]


@pytest.fixture
async def client(registry):
    async with RegistryClient(registry.url) as client:
        yield client


async def _content(client: RegistryClient, repository: str, digest: Digest, size: int | None = None) -> bytes:
    async with client.open_blob(repository, digest, size) as pieces:
        return b"".join([piece async for piece in pieces])


def _image(note: str = "") -> Manifest:
    pointer = {"digest": str(Digest.of(EMPTY_JSON)), "size": 2}
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_CONFIG, **pointer},
        "layers": [{"mediaType": mediatype.OCI_LAYER, **pointer}],
        "annotations": {"note": note},
    }
    return Manifest.parse(orjson.dumps(document))


async def test_ping(client):
    await client.ping()
    async with RegistryClient("http://127.0.0.1:1", retry=RetryPolicy(tries=1)) as nobody:
        with pytest.raises(RegistryUnreachable):
            await nobody.ping()


@pytest.mark.parametrize(("rewindable", "knows_size"), KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 10_000, MIB - 1, MIB, MIB + 1, 3 * MIB + 5, 23 * MIB + 7])
async def test_a_blob_arrives_as_it_was_sent(client, repository, size, rewindable, knows_size):
    blob = Blob(noise(size), rewindable=rewindable, knows_size=knows_size)
    progress = Progress()
    assert await client.blob_exists(repository, blob.digest) is None
    measured = await client.put_blob(repository, blob.opener, progress)
    assert (measured.digest, measured.size) == (blob.digest, size)
    assert await client.blob_exists(repository, blob.digest) == size
    assert await _content(client, repository, blob.digest, size) == blob.content
    assert (progress.bytes_sent, blob.opened) == (size, 1)


@pytest.mark.parametrize(("rewindable", "knows_size"), KINDS)
async def test_a_blob_in_one_stream(registry, repository, rewindable, knows_size):
    blob = Blob(noise(7 * MIB), rewindable=rewindable, knows_size=knows_size)
    async with RegistryClient(registry.url, upload_options=UploadOptions(form=UploadForm.STREAM)) as client:
        await client.put_blob(repository, blob.opener, Progress())
        assert await _content(client, repository, blob.digest) == blob.content


async def test_a_session_is_held_open_and_committed_later(client, repository):
    first, second = noise(6 * MIB, 1), noise(2 * MIB, 2)
    one, other = await client.begin_upload(repository), await client.begin_upload(repository)
    measured = await one.send(MemoryReader(first, rewindable=False, knows_size=False), Progress())
    await other.send(MemoryReader(second), Progress())
    assert await client.blob_exists(repository, measured.digest) is None
    await one.commit(measured.digest)
    await other.cancel()
    await other.cancel()
    assert await client.blob_exists(repository, measured.digest) == len(first)
    assert await client.blob_exists(repository, Digest.of(second)) is None


async def test_the_readers_error_comes_out_as_itself_and_nothing_is_committed(client, repository):
    content = noise(4 * MIB)
    failure = ArchiveError("the checksum is wrong", where="layer.tar")
    for reader in (
        MemoryReader(content, fails_at=3 * MIB, failure=failure),
        MemoryReader(content, rewindable=False, knows_size=False, fails_at=3 * MIB, failure=failure),
        MemoryReader(content, fails_at=4 * MIB, failure=failure),
    ):
        upload = await client.begin_upload(repository)
        with pytest.raises(ArchiveError) as caught:
            await upload.send(reader, Progress())
        assert caught.value is failure
        await upload.cancel()
    assert await client.blob_exists(repository, Digest.of(content)) is None


async def test_small_blobs_cost_two_requests(registry, repository):
    blob = Blob(noise(10_000))
    async with running_proxy(registry.host) as proxy, RegistryClient(proxy.url) as client:
        await client.put_bytes(repository, b"{}")
        await client.put_blob(repository, blob.opener, Progress())
        assert await client.blob_exists(repository, blob.digest) == 10_000
        assert [seen.method for seen in proxy.seen] == ["POST", "PUT", "POST", "PUT", "HEAD"]


async def test_mounting(client, repository):
    blob = Blob(noise(3 * MIB))
    await client.put_blob(repository, blob.opener, Progress())
    target = f"{repository}-copy"
    assert await client.mount_blob(target, blob.digest, repository) is True
    assert await client.blob_exists(target, blob.digest) == 3 * MIB
    assert await client.mount_blob(target, Digest.of(b"nowhere"), repository) is False
    other = Blob(noise(2 * MIB, 5))
    await client.put_blob(target, other.opener, Progress())
    assert await client.blob_exists(target, other.digest) == 2 * MIB


async def test_manifests_and_tags(client, repository):
    manifest = _image()
    await client.put_bytes(repository, EMPTY_JSON)
    reference = Reference(repository, "one")
    assert await client.head_manifest(reference) is None
    for tag in ("one", "two"):
        assert await client.put_manifest(Reference(repository, tag), manifest) == manifest.digest
    descriptor = await client.head_manifest(reference)
    assert descriptor is not None
    assert (descriptor.digest, descriptor.size, descriptor.media_type) == (
        manifest.digest,
        manifest.size,
        manifest.media_type,
    )
    assert (await client.get_manifest(Reference(repository, None, manifest.digest))).content == manifest.content
    assert [tag async for tag in client.list_tags(repository)] == ["one", "two"]
    assert repository in [name async for name in client.list_repositories()]
    with pytest.raises(NotFound):
        await client.get_manifest(Reference(repository, "three"))


async def test_a_tag_is_deleted_and_its_siblings_stay(client, repository):
    manifest = _image()
    await client.put_bytes(repository, EMPTY_JSON)
    for tag in ("one", "two"):
        await client.put_manifest(Reference(repository, tag), manifest)
    assert await client.delete_tag(Reference(repository, "one")) is True
    assert [tag async for tag in client.list_tags(repository)] == ["two"]
    assert (await client.get_manifest(Reference(repository, "two"))).digest == manifest.digest
    assert await client.delete_tag(Reference(repository, "one")) is False


async def test_a_deletion_that_is_called_off_half_way_is_done_first(client, repository, monkeypatch):
    tag, scope = Reference(repository, "one"), anyio.CancelScope()
    await client.put_bytes(repository, EMPTY_JSON)
    await client.put_manifest(tag, _image())

    async def put_and_call_off(http, reference, manifest, access):
        if reference == tag:  # from here on it is the placeholder's
            scope.cancel()
        await put_manifest(http, reference, manifest, access)

    monkeypatch.setattr(deletion, "put_manifest", put_and_call_off)
    with scope:
        await client.delete_tag(tag)

    assert await client.head_manifest(tag) is None


async def test_deleting_a_digest_takes_its_tags(client, repository):
    manifest = _image()
    await client.put_bytes(repository, EMPTY_JSON)
    for tag in ("one", "two"):
        await client.put_manifest(Reference(repository, tag), manifest)
    await client.put_manifest(Reference(repository, "other"), _image("other"))
    assert await client.tags_of(repository, manifest.digest) == ("one", "two")
    assert await client.delete_digest(Reference(repository, None, manifest.digest)) is True
    assert await client.delete_digest(Reference(repository, None, manifest.digest)) is False
    assert [tag async for tag in client.list_tags(repository)] == ["other"]


async def test_a_registry_that_does_not_delete_is_told_and_left_as_it_was(make_registry, repository):
    registry = make_registry(deletes=False, inmemory=True)
    manifest = _image()
    async with RegistryClient(registry.url) as client:
        await client.put_bytes(repository, EMPTY_JSON)
        await client.put_manifest(Reference(repository, "one"), manifest)
        with pytest.raises(DeletesDisabled, match="REGISTRY_STORAGE_DELETE_ENABLED"):
            await client.delete_tag(Reference(repository, "one"))
        assert (await client.get_manifest(Reference(repository, "one"))).digest == manifest.digest


async def test_a_subject_is_noted_under_the_referrers_tag(client, repository):
    manifest = _image()
    await client.put_bytes(repository, EMPTY_JSON)
    await client.put_manifest(Reference(repository, "one"), manifest)
    speakers = []
    for note in ("signature", "bill of materials"):
        document = {**orjson.loads(_image(note).content), "artifactType": f"test/{note[:4]}"}
        document["subject"] = {"mediaType": manifest.media_type, "digest": str(manifest.digest), "size": manifest.size}
        speaker = Manifest.parse(orjson.dumps(document))
        speakers.append(speaker)
        for _ in range(2):
            await client.put_manifest(Reference(repository, None, speaker.digest), speaker)
    referrers = await client.list_referrers(repository, manifest.digest)
    assert [entry.digest for entry in referrers] == [speaker.digest for speaker in speakers]
    assert [entry.artifact_type for entry in referrers] == ["test/sign", "test/bill"]
    assert referrers[0].annotations == {"note": "signature"}


async def test_nothing_listens(unused_tcp_port):
    async with RegistryClient(f"127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(RegistryUnreachable, match="nothing listens there") as caught:
            await client.ping()
    assert caught.value.temporary
