"""A stream opens few upload sessions, however many members it has that could be blobs."""

from __future__ import annotations

import re

import pytest

from registry_spooler.archive.source import PipeSource
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.push.blob_spec import UploadSink
from registry_spooler.push.early_uploads import SESSIONS_MAX
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.pusher import Pusher, PushOptions
from registry_spooler.registry.registry_client import RegistryClient
from support.images import archives, hostile
from support.images.archive_parts import Image, gz, layer, make_tar, read_tar
from support.programs.desk import Desk
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader


class CountingClient(RegistryClient):
    """Counts the sessions that are opened for members nobody has named yet."""

    begun = 0

    async def begin_upload(self, repository: str) -> UploadSink:
        self.begun += 1
        return await super().begin_upload(repository)


@pytest.fixture
async def client(registry):
    async with CountingClient(registry.url) as client:
        yield client


@pytest.fixture
def desk(client, tmp_path) -> Desk:
    return Desk(client, tmp_path)


async def test_none_for_empty_members(desk: Desk, client: CountingClient, repository: str, reader: Reader) -> None:
    tree = [(f"src/{at}/__init__.py", b"") for at in range(3_000)]
    image = Image()
    await desk.push(
        make_tar([*tree, *read_tar(archives.podman_docker(image)).items()]), f"{repository}:1", suffix=".tgz"
    )
    assert client.begun == len(image.layers)
    assert reader.image(repository, "1").diff_ids == tuple(image.diff_ids)


async def test_none_for_a_source_tree(desk: Desk, client: CountingClient, repository: str) -> None:
    tree = [(f"src/{at}/__init__.py", b"") for at in range(3_000)]
    with pytest.raises(ArchiveError, match="it is a tar archive, but not of an image"):
        await desk.push(make_tar(tree), f"{repository}:1", suffix=".tgz")
    assert client.begun == 0


async def test_an_empty_blob_and_an_empty_layer(desk: Desk, repository: str, reader: Reader) -> None:
    await desk.push(archives.artifact(b""), f"{repository}:artifact", suffix=".tgz")
    image = Image(layers=(b"", layer("x")))
    await desk.push(archives.podman_docker(image), f"{repository}:docker", suffix=".tgz")
    assert reader.image(repository, "docker").diff_ids == tuple(image.diff_ids)


async def test_few_for_many_members_that_could_be_layers(
    desk: Desk, client: CountingClient, repository: str, reader: Reader
) -> None:
    others = [(f"doc/{at}.gz", gz(b"%d" % at)) for at in range(SESSIONS_MAX + 50)]
    image = Image()
    tar = make_tar([*others, *read_tar(archives.podman_docker(image)).items()])
    await desk.push(tar, f"{repository}:1", suffix=".tgz")
    assert client.begun == SESSIONS_MAX + len(image.layers)  # these come by a second time
    assert reader.image(repository, "1").diff_ids == tuple(image.diff_ids)


async def test_blobs_that_go_by_their_digest_are_committed_when_there_are_many(
    desk: Desk, client: CountingClient, repository: str, reader: Reader
) -> None:
    """Also from a pipe, which has no second pass."""
    image = Image(layers=tuple(layer(f"{at}") for at in range(SESSIONS_MAX + 50)))
    path = desk.write(archives.oci_archive(image), ".tgz")
    with path.open("rb") as file:
        source = PipeSource(file.fileno(), name="-")
        pusher = Pusher(client, KnownBlobs(), PushOptions())
        await pusher.push_archive(source, Reference.parse(f"{repository}:1"), Progress())
    assert client.begun == len(image.layers)
    assert reader.image(repository, "1").diff_ids == tuple(image.diff_ids)


@pytest.mark.timeout(120)
async def test_a_manifest_that_is_listed_a_thousand_times(
    desk: Desk, repository: str, registry: RunningRegistry
) -> None:
    """It is asked for its blobs once; the first that is nowhere ends it."""
    for make in (hostile.one_manifest_listed_often, lambda: hostile.one_manifest_listed_often(count=9_000)):
        with pytest.raises(ArchiveError) as caught:
            await desk.push(make(), f"{repository}:1", suffix=".tgz")
        assert re.search("more than 10,000 are refused|any complete image of the 1500", str(caught.value))


async def test_a_bundle_whose_names_all_mean_one_large_image(desk: Desk) -> None:
    with pytest.raises(ArchiveError, match=r"the images of the bundle have more than 100,000 blobs in all"):
        await desk.push_bundle(hostile.many_names_for_one_large_image())


async def test_indexes_within_indexes(desk: Desk, repository: str) -> None:
    with pytest.raises(ArchiveError, match="or 2000 manifests in one image"):
        await desk.push(hostile.indexes_within_indexes(), f"{repository}:1", suffix=".tgz")
