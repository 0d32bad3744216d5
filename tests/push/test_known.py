"""A second push reads and sends nothing that the first one saw to."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry_spooler.push.layer_cache import KnownBlobs, KnownLayer
from support.images import archives
from support.images.archive_parts import Image, big_layer, digest, layer
from support.programs.desk import Desk
from support.registries.verify import Reader

BIG = Image(layers=(big_layer(3 << 20, seed=1), big_layer(2 << 20, seed=2)))


@pytest.mark.parametrize("tar", [archives.podman_docker(BIG), archives.oci_archive(BIG)], ids=["docker", "oci"])
async def test_the_same_archive_again_reads_only_metadata(tar: bytes, desk: Desk, repository: str) -> None:
    first = await desk.push(tar, repository)
    assert desk.progress.bytes_read > 2 << 20
    second = await desk.push(tar, repository)
    assert second.digest == first.digest
    assert (second.counts.blobs_uploaded, second.counts.blobs_existing) == (0, 3)
    assert (desk.progress.bytes_read, desk.progress.bytes_sent) == (0, 0)


async def test_another_process_knows_too(desk: Desk, repository: str) -> None:
    await desk.push(archives.podman_docker(BIG), repository)
    desk.known = KnownBlobs(desk.folder / "state")
    await desk.push(archives.podman_docker(BIG), repository)
    assert desk.progress.bytes_read == 0


async def test_another_repository_mounts(desk: Desk, reader: Reader, repository: str) -> None:
    await desk.push(archives.podman_docker(BIG), f"{repository}/one")
    result = await desk.push(archives.podman_docker(BIG), f"{repository}/two")
    assert (result.counts.blobs_uploaded, result.counts.blobs_mounted) == (0, 3)
    assert reader.image(f"{repository}/two").diff_ids == tuple(BIG.diff_ids)


async def test_what_is_remembered_is_asked_for(desk: Desk, reader: Reader, repository: str) -> None:
    """A memory that speaks of blobs that the registry lost costs a question, and the layer is sent anew."""
    lost = KnownLayer(digest=digest(b"lost"), size=4, repository=f"{repository}/lost")
    for content in BIG.layers:
        await desk.known.remember_layer(digest(content), "gzip", lost)
    result = await desk.push(archives.podman_docker(BIG), repository)
    assert result.counts.blobs_uploaded == 3
    assert reader.image(repository).diff_ids == tuple(BIG.diff_ids)


async def test_one_changed_layer_sends_that_layer(desk: Desk, repository: str) -> None:
    await desk.push(archives.podman_docker(BIG), repository)
    changed = Image(layers=(BIG.layers[0], layer("changed")))
    result = await desk.push(archives.podman_docker(changed), repository)
    assert (result.counts.blobs_uploaded, result.counts.blobs_existing) == (2, 1)  # the layer and the config
    assert desk.progress.bytes_read == len(layer("changed"))


async def test_entries_that_cannot_be_read_are_no_entries(tmp_path: Path) -> None:
    known = KnownBlobs(tmp_path)
    kept = KnownLayer(digest=digest(b"x"), size=1, repository="a")
    await known.remember_layer(digest(b"plain"), "gzip", kept)
    (path,) = tmp_path.iterdir()
    assert await KnownBlobs(tmp_path).layer(digest(b"plain"), "gzip") == kept
    for content in (b"", b"{", b"[]", b'{"digest":"sha256:1","size":1,"repository":"a"}'):
        path.write_bytes(content)
        assert await KnownBlobs(tmp_path).layer(digest(b"plain"), "gzip") is None


async def test_half_written_entries_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".new-abc").write_bytes(b"half")
    await KnownBlobs(tmp_path).trim()
    assert list(tmp_path.iterdir()) == []
