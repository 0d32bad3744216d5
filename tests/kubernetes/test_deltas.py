"""Rebuilt layers over the API server: what is new in them crosses, and what is stored is what a whole push stores."""

from __future__ import annotations

import json
import os
import random
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from delta.layers import File, tar
from registry_spooler.aio import in_thread
from registry_spooler.archive.compression import Compression
from registry_spooler.delta.signature import EntrySignature, Signature, signature_of
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.redial import Redial
from registry_spooler.kubernetes.remote_session import PodSession
from registry_spooler.kubernetes.transfer.layer_deltas import DeltaMode
from registry_spooler.kubernetes.transfer.link_rate import LinkRate
from registry_spooler.kubernetes.transfer.send import SendOptions, open_source, send
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.push.layer_cache import KnownBlobs
from registry_spooler.push.pusher import Pusher
from registry_spooler.registry.registry_client import RegistryClient
from support.cluster.apiserver import PROGRAMS, ApiServer
from support.cluster.wire import Wire
from support.health.health_port import until
from support.images import archives
from support.images.archive_parts import Image, dumps, gz, layer
from support.programs.daemon_calls import Daemon
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

KILO = 1024


@dataclass(frozen=True)
class BuiltImage(Image):
    """An image with a history."""

    steps: tuple[str, ...] = ()

    @property
    def config(self) -> bytes:
        history = [{"created_by": "ENV", "empty_layer": True}, *({"created_by": step} for step in self.steps)]
        return dumps({**json.loads(super().config), "history": history})


def packages(time: int, *more: File) -> bytes:
    """A layer of some 3 MB that compresses to the half, with all files under one time."""
    chance = random.Random(7)
    files = [File(f"lib/{number:03}.py", chance.randbytes(5000).hex().encode(), time) for number in range(300)]
    return tar([*files, *more], tarfile.GNU_FORMAT)


STEP = "RUN pip install"


def image(*layers: bytes, steps: tuple[str, ...] = (STEP,)) -> BuiltImage:
    return BuiltImage(layers=layers, steps=steps)


@dataclass
class User:
    """Somebody with archives, outside the cluster."""

    session: PodSession
    folder: Path
    repository: str
    registry: RunningRegistry
    wire: Wire
    archive: Callable[[Image], bytes] = archives.docker_25
    crossed: int = 0
    """Bytes of the last push, in both directions."""

    async def push(self, built: Image, tag: str = "1", **how: Any) -> ImageResult:
        """Push through the API server, with nothing in the cache."""
        path = self._archive(built)
        before = self.wire.sent + self.wire.received
        options = SendOptions(cache=self.folder / "cache" / tag, **how)
        async with open_source(path) as source:
            (result,) = await send(self.session, source, Reference(self.repository, tag), Progress(), options=options)
        self.crossed = self.wire.sent + self.wire.received - before
        assert list((options.cache / "blobs").glob("*")) == []
        return result

    async def whole(self, built: Image, tag: str = "1", repository: str = "") -> ImageResult:
        """Push where the registry is."""
        async with RegistryClient(self.registry.url) as client, open_source(self._archive(built)) as source:
            target = Reference(repository or self.repository, tag)
            (result,) = await Pusher(client, KnownBlobs(None)).push_archive(source, target, Progress())
        return result

    def _archive(self, built: Image) -> Path:
        path = self.folder / "archive.tar"
        path.write_bytes(self.archive(built))
        return path


@pytest.fixture
async def user(
    cluster: Cluster, api: ApiServer, registry: RunningRegistry, wire: Wire, tmp_path: Path, repository: str
) -> AsyncIterator[User]:
    api.registry = registry.url
    (api.spool / ".work").mkdir()
    session = PodSession(
        cluster, "app.kubernetes.io/name=registry-spooler", "spooler", redial=Redial(first_pause_seconds=0.01)
    )
    yield User(session, tmp_path, repository, registry, wire)
    await api.all_ended()


OLD = image(packages(1_700_000_000))
NEW = image(packages(1_700_009_000, File("lib/new.py", b"new = 1\n")))


async def test_a_rebuilt_layer_is_not_sent_again(user: User, registry: RunningRegistry, api: ApiServer) -> None:
    api.has_daemon = False  # it would sign the new layer as well
    await user.whole(OLD)
    result = await user.push(NEW)
    assert user.crossed < 80 * KILO
    assert Reader(registry).image(user.repository, "1").diff_ids == tuple(NEW.diff_ids)
    assert (await user.whole(NEW, repository=f"{user.repository}/whole")).digest == result.digest
    assert result.counts.saved_bytes > 1400 * KILO
    document = result.to_json()
    assert document["delta"] == {"layers": 1, "saved_bytes": result.counts.saved_bytes}
    assert ImageResult.from_json(document).counts == result.counts
    assert len(list((api.spool / ".state" / "signatures").iterdir())) == 1


async def test_the_daemon_knows_what_a_delta_has_saved(user: User, registry: RunningRegistry, api: ApiServer) -> None:
    await user.whole(OLD)
    with Daemon(api.spool, registry.url) as daemon:
        result = await user.push(NEW)
        status = await in_thread(daemon.status)
    (pushed,) = status["pushed"]
    assert (f"{user.repository}:1", str(result.digest)) == (pushed["reference"], pushed["digest"])
    assert {"layers": 1, "saved_bytes": result.counts.saved_bytes} == pushed["delta"] == status["delta"]
    assert result.counts.uploaded_bytes == pushed["uploaded_bytes"]
    assert 1 == status["images"]


async def test_the_daemon_signs_what_has_come_before_anybody_asks(user: User, api: ApiServer) -> None:
    """The next push of an image is compared with this one, and need not wait for that."""
    folder = api.spool / ".state" / "signatures"
    with Daemon(api.spool, user.registry.url):
        await user.push(OLD)
        blob = Reader(user.registry).image(user.repository, "1").layers[0].digest
        await until(lambda: (folder / f"{blob.replace(':', '-')}.signature").exists())
        content = await in_thread((folder / f"{blob.replace(':', '-')}.signature").read_bytes)
    assert content == signature_of([OLD.layers[0]]).encode()


async def test_a_layer_is_found_by_its_step_in_the_newest_image(user: User) -> None:
    """The tag is a new one, and a layer has come in before the one that the history tells of."""
    await user.whole(OLD)
    longer = image(layer("tools"), NEW.layers[0], steps=("RUN apt-get install", STEP))
    result = await user.push(longer, "2", compression=Compression.ZSTD)
    assert result.counts.rebuilt_layers == 1
    assert user.crossed < 80 * KILO


@pytest.mark.parametrize("mode", [DeltaMode.AUTO, DeltaMode.ALWAYS])
async def test_what_would_not_save_half_goes_whole(user: User, mode: DeltaMode) -> None:
    chance = random.Random(9)
    mostly_new = [File(f"other/{number}", chance.randbytes(5000).hex().encode()) for number in range(320)]
    built = image(packages(1_700_009_000, *mostly_new))
    await user.whole(OLD)
    result = await user.push(built, delta=mode)
    assert result.counts.rebuilt_layers == (mode is DeltaMode.ALWAYS)
    assert (await user.whole(built, repository=f"{user.repository}/whole")).digest == result.digest


async def test_compressed_layers_are_compressed_anew_to_be_compared(user: User) -> None:
    whole = await user.whole(OLD)
    archive = replace(user, archive=partial(archives.oci_archive, compress=gz))
    result = await archive.push(NEW, repack=True)
    assert result.counts.rebuilt_layers == 1
    assert archive.crossed < 80 * KILO
    assert whole.digest != result.digest == (await user.whole(NEW, repository=f"{user.repository}/whole")).digest


async def test_nobody_is_asked_for_a_base_when_told_so(user: User, api: ApiServer) -> None:
    await user.whole(OLD)
    await user.push(NEW, delta=DeltaMode.NEVER)
    assert user.crossed > 1400 * KILO
    assert not (api.spool / ".state").exists()


async def test_a_base_that_is_another_than_was_told_ends_in_a_whole_layer(user: User, api: ApiServer) -> None:
    """Every content is said to be that of the next file: the pod notices, and the layer is sent."""
    base = (await user.whole(OLD)).digest
    assert base is not None
    signature = signature_of([OLD.layers[0]])
    hashes = [entry.content_hash for entry in signature.entries]
    shifted = map(replace_hash, signature.entries, [*hashes[1:], hashes[0]])
    folder = api.spool / ".state" / "signatures"
    folder.mkdir(parents=True)
    blob = Reader(user.registry).image(user.repository, "1").layers[0].digest
    name = blob.replace(":", "-") + ".signature"
    (folder / name).write_bytes(Signature(signature.layer_bytes, list(shifted)).encode())
    with Daemon(api.spool, user.registry.url) as daemon:
        result = await user.push(NEW)
        assert (await in_thread(daemon.status))["calls"]["rebuild_failed"] == 1
    assert result.counts.rebuilt_layers == 0
    assert (await user.whole(NEW, repository=f"{user.repository}/whole")).digest == result.digest


def replace_hash(entry: EntrySignature, content_hash: bytes) -> EntrySignature:
    return replace(entry, content_hash=content_hash)


async def test_a_pod_of_another_version_gets_whole_layers(user: User, api: ApiServer, tmp_path: Path) -> None:
    older = tmp_path / "older" / "registry-client"
    older.parent.mkdir()
    module = "registry_spooler.cli.registry_client.command_line"
    forget = f"from {module} import cli, main; del cli.commands['signature']; main()"
    older.write_text(f'#!/bin/sh\nexec {PROGRAMS}/python -c "{forget}" "$@"\n')
    older.chmod(0o755)
    api.environment["PATH"] = f"{older.parent}:{os.environ['PATH']}"
    await user.whole(OLD)
    assert (await user.push(NEW)).counts.rebuilt_layers == 0


async def test_a_cut_recipe_is_sent_again(user: User, wire: Wire, api: ApiServer) -> None:
    """There is no folder for work either, so that the system's is taken."""
    (api.spool / ".work").rmdir()
    await user.whole(OLD)
    chance = random.Random(3)
    more = [File(f"new/{number}", chance.randbytes(9000)) for number in range(30)]
    wire.cut_after(sent=150 * KILO)
    result = await user.push(image(packages(1_700_009_000, *more)))
    assert wire.cuts >= 1
    assert result.counts.rebuilt_layers == 1


async def test_a_link_that_is_faster_than_the_work_gets_whole_layers(user: User, api: ApiServer) -> None:
    """What was measured in one push holds for the next, until another is slower."""
    await user.whole(OLD)
    rate = LinkRate(user.folder / "cache" / "1" / "links", user.session.cluster.server)
    rate.note(30 << 20, 1.0)
    await in_thread(rate.save)
    assert (await user.push(NEW)).counts.rebuilt_layers == 0
    assert not (api.spool / ".state").exists()
    again = LinkRate(user.folder / "cache" / "1" / "links", user.session.cluster.server)
    await in_thread(again.load)
    assert again.bytes_per_second not in (None, rate.bytes_per_second)


def test_a_rate_is_what_was_measured_last(tmp_path: Path) -> None:
    rate = LinkRate(tmp_path / "links", "https://server")
    rate.note(1000, 0.00001)
    rate.save()
    assert (rate.bytes_per_second, rate.is_fast, (tmp_path / "links").exists()) == (None, False, False)
    rate.note(50 << 20, 1.0)
    rate.save()
    (file,) = (tmp_path / "links").iterdir()
    later, other = LinkRate(tmp_path / "links", "https://server"), LinkRate(tmp_path / "links", "https://other")
    later.load()
    other.load()
    assert (later.is_fast, other.is_fast) == (True, False)
    later.note(2 << 20, 1.0)
    assert not later.is_fast
    for content in ("", "fast", "-5", "nan"):
        file.write_text(content)
        broken = LinkRate(tmp_path / "links", "https://server")
        broken.load()
        assert not broken.is_fast
