"""`--verify digest`: the registry checks digests as it stores the blobs, and what it refuses is looked into here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry_spooler.archive import member_blob
from registry_spooler.archive.source import PipeSource
from registry_spooler.backoff import Backoff
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.pusher import Pusher, PushOptions
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from support.images import archives
from support.images.archive_parts import Image, big_layer, digest, gz, hexdigest, layer, make_tar, read_tar
from support.programs.desk import Desk
from support.registries.faultproxy import Fault, running_proxy
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

MIB = 1 << 20
DIGESTS_ONLY = PushOptions(inflate=False)
QUICK = RetryPolicy(tries=5, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01), patience_seconds=3.0)
IMAGE = Image(layers=(big_layer(6 * MIB), layer("top")))
LARGE = gz(IMAGE.layers[0])
"""About 3 MiB as it is sent."""
TAR = archives.oci_archive(IMAGE)

both = pytest.mark.parametrize("suffix", [".tar", ".tgz"])


def with_other(content: bytes, replacement: bytes) -> bytes:
    """The archive with a blob that is not what its name says."""
    return make_tar([(path, replacement if data == content else data) for path, data in read_tar(TAR).items()])


def flipped(content: bytes) -> bytes:
    """The same with one other byte, late in it."""
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.fixture
def hashed_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all pieces that were hashed while blobs were read."""
    sizes: list[int] = []

    class CountedHash:
        def __init__(self, algorithm: str) -> None:
            self._hash = hashlib.new(algorithm)
            self.hexdigest = self._hash.hexdigest

        def update(self, piece: bytes) -> None:
            sizes.append(len(piece))
            self._hash.update(piece)

    monkeypatch.setattr(member_blob, "hashlib", SimpleNamespace(new=CountedHash))
    return sizes


@both
async def test_an_image_is_whole_though_nothing_large_was_hashed_here(
    suffix: str, desk: Desk, reader: Reader, repository: str, hashed_bytes: list[int]
) -> None:
    await desk.push(TAR, repository, suffix=suffix, options=DIGESTS_ONLY)
    assert sum(hashed_bytes) < MIB
    assert reader.image(repository).diff_ids == tuple(IMAGE.diff_ids)


@both
@pytest.mark.parametrize("content", [LARGE, gz(layer("top"))], ids=["large", "small"])
async def test_a_wrong_digest_is_told_as_ever(
    content: bytes, suffix: str, desk: Desk, reader: Reader, registry: RunningRegistry, repository: str
) -> None:
    wrong = flipped(content)
    sentence = f"blobs/sha256/{hexdigest(content)[:12]}…: its digest is {digest(wrong)}, not {digest(content)}"

    with pytest.raises(ArchiveError) as caught:
        await desk.push(with_other(content, wrong), repository, suffix=suffix, options=DIGESTS_ONLY)

    assert str(caught.value) == sentence
    assert not caught.value.temporary
    assert reader.tags(repository) == []
    assert await desk.registry.blob_exists(repository, digest(content)) is None
    assert await desk.registry.blob_exists(repository, digest(wrong)) is None
    # The refused session is gone; the one that the second reading broke off is too when the registry has noticed.
    assert len(sessions_with_data(registry, repository)) <= 1


@both
async def test_a_wrong_size_is_told_as_ever(suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
    with pytest.raises(ArchiveError, match=r"bytes|size"):
        await desk.push(with_other(LARGE, LARGE[:-1]), repository, suffix=suffix, options=DIGESTS_ONLY)
    assert reader.tags(repository) == []


@pytest.mark.parametrize("content", [LARGE, flipped(LARGE)], ids=["right", "wrong"])
async def test_what_comes_through_a_pipe_is_hashed_at_once(
    content: bytes, desk: Desk, reader: Reader, repository: str
) -> None:
    pusher = Pusher(desk.registry, KnownBlobs(desk.folder / "state"), DIGESTS_ONLY)
    with desk.write(with_other(LARGE, content), ".tar").open("rb", buffering=0) as file:
        source = PipeSource(file.fileno(), name="-")  # read as a pipe is: once, front to back
        if content == LARGE:
            await pusher.push_archive(source, Reference.parse(repository), Progress())
        else:
            with pytest.raises(ArchiveError, match=f"its digest is {digest(content)}, not"):
                await pusher.push_archive(source, Reference.parse(repository), Progress())
    assert reader.tags(repository) == (["latest"] if content == LARGE else [])


@both
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_connection_that_breaks(
    method: str, suffix: str, registry: RunningRegistry, reader: Reader, repository: str, tmp_path: Path
) -> None:
    """Within the bytes of a blob it goes on; with the last answer lost, it finds out what became of the blob."""
    if method == "PATCH":
        fault = Fault(method=method, path="/uploads/", cut_request_after=MIB)
    else:
        fault = Fault(method=method, path="/uploads/", cut_answer_after=0)
    async with running_proxy(registry.host, fault) as proxy, RegistryClient(proxy.url, retry=QUICK) as client:
        desk = Desk(client, tmp_path)
        await desk.push(TAR, repository, suffix=suffix, options=DIGESTS_ONLY)
        assert fault.times == 0
    assert reader.image(repository).diff_ids == tuple(IMAGE.diff_ids)


@both
async def test_over_tls(suffix: str, make_registry, repository: str, tmp_path: Path) -> None:
    registry = make_registry(tls=True)
    async with RegistryClient(registry.host, certificate=registry.certificate) as client:
        await Desk(client, tmp_path).push(TAR, repository, suffix=suffix, options=DIGESTS_ONLY)
    assert Reader(registry).image(repository).diff_ids == tuple(IMAGE.diff_ids)


def sessions_with_data(registry: RunningRegistry, repository: str) -> list[Path]:
    uploads = registry.storage / "docker/registry/v2/repositories" / repository / "_uploads"
    return list(uploads.glob("*/data"))
