"""What comes through a pipe comes by once: what the first pass took for nothing cannot be fetched any more."""

from __future__ import annotations

import os

import pytest

from registry_spooler.archive.source import PipeSource
from registry_spooler.errors import ArchiveError, SpoolerError, UploadLost
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.push.blob_spec import UploadSink
from registry_spooler.push.pusher import Pusher
from registry_spooler.registry.registry_client import RegistryClient
from support.images import archives
from support.images.archive_parts import Image, dumps, make_tar
from support.images.archive_reading import Pipe
from support.programs.desk import Desk
from support.registries.verify import Reader

LAYER = b"a tar of the oldest kind has no magic" + bytes(1000)


def archive(path: str) -> bytes:
    """A docker archive whose one layer does not look like one, and has this path."""
    image = Image(layers=(LAYER,))
    item = {"Config": "config.json", "RepoTags": None, "Layers": [path]}
    return make_tar([(path, LAYER), ("config.json", image.config), ("manifest.json", dumps([item]))])


async def push_through_a_pipe(desk: Desk, tar: bytes, repository: str) -> None:
    with Pipe() as pipe:
        assert len(tar) == os.write(pipe.write_fd, tar)  # it fits into a pipe
        pipe.close_writer()
        source = PipeSource(pipe.read_fd, name="-")
        await Pusher(desk.registry, desk.known).push_archive(source, Reference(repository), Progress())


async def test_a_layer_that_is_not_known_for_one_is_wrong_for_good(desk: Desk, reader: Reader, repository: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        await push_through_a_pipe(desk, archive("data"), repository)

    assert not caught.value.temporary
    assert "data: what it is shows only at the end of the archive, and a pipe cannot be read again; push the " in str(
        caught.value
    )
    assert reader.tags(repository) == []


async def test_the_same_from_a_file_is_read_twice(desk: Desk, reader: Reader, repository: str) -> None:
    await desk.push(archive("data"), repository, suffix=".tgz")

    assert len(reader.image(repository).layers) == 1


async def test_an_upload_that_is_lost_may_not_be_lost_the_next_time(
    desk: Desk, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = RegistryClient.begin_upload

    async def begin_and_lose(client: RegistryClient, to: str) -> UploadSink:
        upload = await begin(client, to)
        await upload.cancel()

        async def send(*_: object) -> None:
            raise UploadLost(to, "gone")

        monkeypatch.setattr(upload, "send", send)
        return upload

    monkeypatch.setattr(RegistryClient, "begin_upload", begin_and_lose)
    with pytest.raises(SpoolerError, match="was lost: the archive came through a pipe") as caught:
        await push_through_a_pipe(desk, archive("data.tar"), repository)

    assert caught.value.temporary


async def test_plain_layers_of_docker_stay_as_they_are(desk: Desk, reader: Reader, repository: str) -> None:
    """Whether they are Docker's shows only at the end, when they have been sent."""
    await push_through_a_pipe(desk, archives.docker_25(), repository)

    assert reader.image(repository).content == archives.oci_manifest(Image(), compress=bytes)
