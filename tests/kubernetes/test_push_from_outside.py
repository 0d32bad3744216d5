"""`push` over the API server into a real registry: only what is missing crosses, and a cut costs little."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from registry_spooler.archive.compression import Compression
from registry_spooler.errors import ArchiveError
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import RemoteError
from registry_spooler.kubernetes.redial import Redial
from registry_spooler.kubernetes.remote_session import PodSession
from registry_spooler.kubernetes.transfer.send import SendOptions, open_source, send
from registry_spooler.kubernetes.transfer.thin_archive import content_part, pack
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from support.cluster.apiserver import ApiServer
from support.cluster.wire import Wire
from support.images import archives, signed
from support.images.archive_parts import COMPRESSORS, Image, big_layer, hexdigest, layer, make_tar, read_tar
from support.registries.running_registry import ForeignRegistry, RunningRegistry
from support.registries.verify import Reader

KILO = 1024
MEGA = 1 << 20
FORMATS = {
    "docker_legacy": archives.docker_legacy,
    "docker_25": archives.docker_25,
    "podman": archives.podman_docker,
    "crane": archives.crane,
    "oci": archives.oci_archive,
}


def image(repository: str, *sizes: int) -> Image:
    """An image that no other test has pushed: one small layer, and one of each size."""
    seed = int(repository[-12:], 16)
    return Image(layers=(layer(repository), *(big_layer(size, seed=seed + at) for at, size in enumerate(sizes))))


def index_tag(subject: bytes) -> str:
    """What the tags of all that speaks of a manifest begin with."""
    return f"sha256-{hexdigest(subject)}"


class Outside:
    """A user with an archive, outside the cluster."""

    def __init__(self, session: PodSession, folder: Path, repository: str) -> None:
        self.session = session
        self.folder = folder
        self.repository = repository
        self.progress = Progress()
        self.streams = 1

    async def push(self, archive: bytes | Path, tag: str = "1", *, suffix: str = ".tar") -> ImageResult:
        path = archive if isinstance(archive, Path) else self.folder / f"archive{suffix}"
        if isinstance(archive, bytes):
            path.write_bytes(archive)
        self.progress = Progress()
        options = SendOptions(streams=self.streams, cache=self.folder / "cache")
        async with open_source(path) as source:
            (result,) = await send(
                self.session, source, Reference(self.repository, tag), self.progress, options=options
            )
        assert [] == list((self.folder / "cache" / "blobs").glob("*"))
        return result


@pytest.fixture
async def outside(
    cluster: Cluster, api: ApiServer, registry: RunningRegistry | ForeignRegistry, tmp_path: Path, repository: str
) -> AsyncIterator[Outside]:
    api.registry = registry.url
    session = PodSession(
        cluster, "app.kubernetes.io/name=registry-spooler", "spooler", redial=Redial(first_pause_seconds=0.01)
    )
    yield Outside(session, tmp_path, repository)
    await api.all_ended()


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("name", FORMATS)
async def test_formats(outside: Outside, registry: RunningRegistry, name: str, suffix: str) -> None:
    packed = image(outside.repository, 400 * KILO)
    result = await outside.push(COMPRESSORS[suffix](FORMATS[name](packed)), suffix=suffix)
    found = Reader(registry).image(outside.repository, "1")
    assert found.digest == str(result.digest)
    assert tuple(packed.diff_ids) == found.diff_ids
    assert Reference(outside.repository, "1") == result.reference
    assert ("linux/amd64",) == result.platforms
    assert (3, 0) == (result.counts.blobs_uploaded, result.counts.blobs_existing)


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_what_speaks_of_an_image_goes_with_it(outside: Outside, registry: RunningRegistry, suffix: str) -> None:
    """What is found by a tag, what has a subject, and what the index does not list; of the image and of a platform."""
    images = [image(outside.repository), Image(platform="linux/arm64")]
    index, arm = signed.index_of(*images), archives.oci_manifest(images[1])
    attached = {"sigs": signed.signature(index), "atts": signed.attestation(arm), "sboms": signed.sbom()}
    bundle, large = signed.bundle(arm), signed.bundle(index, kind=archives.INDEX, content=os.urandom(400 * KILO))
    tar = signed.cosign_save_index(index, images, attached)
    more = [entry for one in (bundle, large) for entry in one.entries]
    result = await outside.push(COMPRESSORS[suffix](make_tar([*read_tar(tar).items(), *more])), suffix=suffix)
    reader = Reader(registry)
    assert reader.image(outside.repository, "1").content == index
    tags = {f"{index_tag(index)}.sig": "sigs", f"{index_tag(arm)}.att": "atts", f"{index_tag(index)}.sbom": "sboms"}
    for tag, kind in tags.items():
        assert reader.image(outside.repository, tag).content == attached[kind].manifest
    for subject, one in ((arm, bundle), (index, large)):
        (child,) = reader.image(outside.repository, index_tag(subject)).children
        assert child.content == one.manifest
    assert (result.referrers, result.left_out) == (5, ())
    again = await outside.push(COMPRESSORS[suffix](tar), "2", suffix=suffix)
    assert (again.digest, again.referrers, again.counts.blobs_uploaded) == (result.digest, 3, 0)


@pytest.mark.parametrize("name", ["podman", "oci"])
async def test_the_second_push_sends_kilobytes(outside: Outside, wire: Wire, api: ApiServer, name: str) -> None:
    archive = FORMATS[name](image(outside.repository, 6 * MEGA))
    first = await outside.push(archive)
    assert wire.sent > 3 * MEGA
    before = wire.sent
    second = await outside.push(archive, "2")
    assert wire.sent - before < 64 * KILO
    assert (first.digest, 0) == (second.digest, second.counts.blobs_uploaded)
    assert first.size_bytes == second.size_bytes


async def test_the_same_digest_as_a_push_in_the_pod(outside: Outside, tmp_path: Path, api: ApiServer) -> None:
    archive = archives.podman_docker(image(outside.repository, 6 * MEGA))
    result = await outside.push(archive)
    command = ["registry-client", "push", f"{outside.repository}:there", str(tmp_path / "archive.tar")]
    environment = {**api.environment_of_exec, "HOME": str(tmp_path)}
    pushed = await anyio.run_process(command, env=environment, stderr=None)
    assert str(result.digest) == pushed.stdout.decode().strip()


async def test_through_a_pipe(outside: Outside, registry: RunningRegistry, wire: Wire, tmp_path: Path) -> None:
    packed = image(outside.repository, 6 * MEGA)
    (tmp_path / "archive.tar").write_bytes(archives.podman_docker(packed))
    for tag, most in (("1", 8 * MEGA), ("2", 64 * KILO)):
        before = wire.sent
        with subprocess.Popen(["cat", tmp_path / "archive.tar"], stdout=subprocess.PIPE) as cat:  # noqa: ASYNC220 - a pipe is wanted, and is there at once
            assert cat.stdout is not None
            async with open_source(cat.stdout) as source:
                reference = Reference(outside.repository, tag)
                options = SendOptions(cache=tmp_path / "cache")
                await send(outside.session, source, reference, Progress(), options=options)
        assert tuple(packed.diff_ids) == Reader(registry).image(outside.repository, tag).diff_ids
        assert wire.sent - before < most


async def test_a_cut_at_half_costs_the_blob_on_the_wire(
    outside: Outside, wire: Wire, registry: RunningRegistry
) -> None:
    archive = archives.crane(image(outside.repository, *6 * [2 * MEGA]))
    wire.cut_after(sent=len(archive) // 2)
    result = await outside.push(archive)
    assert 1 == wire.cuts
    blob = max(found.size for found in Reader(registry).image(outside.repository, "1").layers)
    assert wire.sent < len(archive) + blob + 100 * KILO
    assert 8 == result.counts.blobs_uploaded + result.counts.blobs_existing


@pytest.mark.parametrize("sent", [0, 500, 3000, 6000, 20_000, 400_000, 900_000])
async def test_a_cut_anywhere(outside: Outside, wire: Wire, registry: RunningRegistry, sent: int) -> None:
    outside.streams = 3
    packed = image(outside.repository, MEGA, MEGA)
    wire.cut_after(sent=sent)
    result = await outside.push(archives.podman_docker(packed))
    assert str(result.digest) == Reader(registry).image(outside.repository, "1").digest


@pytest.mark.parametrize("received", [1000, 3000, 5000, 7000, 9000])
async def test_a_cut_of_the_answers(outside: Outside, wire: Wire, registry: RunningRegistry, received: int) -> None:
    packed = image(outside.repository, MEGA)
    wire.cut_after(received=received)
    result = await outside.push(archives.oci_archive(packed))
    assert str(result.digest) == Reader(registry).image(outside.repository, "1").digest


async def test_another_repository_takes_the_blobs_over(
    outside: Outside, wire: Wire, registry: RunningRegistry, tmp_path: Path
) -> None:
    archive = archives.oci_archive(image(outside.repository, MEGA))
    await outside.push(archive)
    before = wire.sent
    outside.repository += "/copy"
    result = await outside.push(archive)
    assert wire.sent - before < 64 * KILO
    assert str(result.digest) == Reader(registry).image(outside.repository, "1").digest


async def test_another_pod_takes_over(outside: Outside, api: ApiServer, registry: RunningRegistry) -> None:
    await outside.session.remote()
    api.pods = ("spooler-1",)
    result = await outside.push(archives.podman_docker())
    assert str(result.digest) == Reader(registry).image(outside.repository, "1").digest


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_a_bad_archive_tags_nothing(outside: Outside, registry: RunningRegistry, suffix: str) -> None:
    """It is found out here: nothing of the bad layer goes over the link."""
    packed = image(outside.repository, 6 * MEGA)
    archive = archives.oci_archive(packed)
    middle = archive.index(COMPRESSORS[".tgz"](packed.layers[1])[:64]) + 1_000_000
    with pytest.raises(ArchiveError):
        await outside.push(COMPRESSORS[suffix](archive[:middle] + b"\0\1\2\3" + archive[middle + 4 :]), suffix=suffix)
    assert outside.progress.bytes_sent < MEGA
    assert not Reader(registry).has(outside.repository, "1")


async def test_what_the_pod_receives_is_verified_there_too(outside: Outside, api: ApiServer) -> None:
    remote = await outside.session.remote()
    part = content_part(f"blobs/sha256/{'0' * 64}", b"not that")
    with pytest.raises(RemoteError, match="digest"):
        await remote.call("receive", "--blobs", "--", outside.repository, stdin=pack([part]))


async def test_an_index_with_several_platforms(outside: Outside, registry: RunningRegistry) -> None:
    images = [Image(layers=(layer(name),), platform=name) for name in ("linux/amd64", "linux/arm64")]
    result = await outside.push(archives.flat_index(*images))
    found = Reader(registry).image(outside.repository, "1")
    assert (str(result.digest), 2) == (found.digest, len(found.children))


async def test_a_raw_file(outside: Outside, registry: RunningRegistry, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"any bytes" * 1000)
    async with open_source(tmp_path / "notes.txt") as source:
        reference = Reference(outside.repository, "1")
        options = SendOptions(cache=tmp_path / "cache", compression=Compression.GZIP)
        await send(outside.session, source, reference, Progress(), is_archive=False, options=options)
    found = Reader(registry).image(outside.repository, "1")
    assert b"any bytes" * 1000 == Reader(registry).unpacked(outside.repository, found.layers[0])


async def test_a_slow_network(outside: Outside, wire: Wire, registry: RunningRegistry) -> None:
    wire.delay_seconds = 0.02
    result = await outside.push(archives.podman_docker(image(outside.repository, 300 * KILO)))
    assert str(result.digest) == Reader(registry).image(outside.repository, "1").digest


async def test_what_a_killed_push_left_is_swept(outside: Outside, tmp_path: Path) -> None:
    blobs = tmp_path / "cache" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "blob-old").touch()
    os.utime(blobs / "blob-old", (0, 0))
    await outside.push(archives.podman_docker(image(outside.repository)))
    assert [] == list(blobs.iterdir())


def commands(api: ApiServer, since: int) -> list[str]:
    """What was started in the pod after so many execs."""
    return sorted(running.command[4] for running in api.executions[since:])


@pytest.mark.parametrize("name", FORMATS)
async def test_an_unchanged_image_takes_one_exec(outside: Outside, api: ApiServer, name: str) -> None:
    archive = FORMATS[name](image(outside.repository, 2 * MEGA))
    await outside.push(archive)
    before = len(api.executions)
    assert 0 == (await outside.push(archive, "2")).counts.blobs_uploaded
    assert ["requests"] == commands(api, before)


@pytest.mark.parametrize(("size", "execs"), [(MEGA, ["requests"]), (4 * MEGA, ["receive", "requests"])])
async def test_only_a_long_layer_takes_an_exec_of_its_own(
    outside: Outside, api: ApiServer, size: int, execs: list[str]
) -> None:
    await outside.push(archives.oci_archive(image(outside.repository, MEGA)))
    before = len(api.executions)
    await outside.push(archives.oci_archive(image(outside.repository, MEGA, size)))
    assert execs == commands(api, before)
