"""Bundles and single files for the same repositories: whatever came last is what the registry holds."""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.images import archives
from support.images.archive_parts import Image, big_layer, gz, layer
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.verify import Reader

LARGE = 24 << 20
ROUNDS_SECONDS = 60
FILES = 60
REPOSITORIES = ("team/a", "team/b", "team/c", "team/d")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def image(name: str, text: str, *, size: int = 0) -> Image:
    """An image that can be told from all others, and takes its time when it has a size."""
    more = (big_layer(size, seed=len(text) + sum(text.encode())),) if size else ()
    return Image(layers=(layer(text), *more), names=(name,))


def made_by(reader: Reader, repository: str, tag: str) -> str:
    """The diff ID of the first layer: that of `image`."""
    return reader.image(repository, tag).diff_ids[0]


@pytest.mark.parametrize("compress", [bytes, gz], ids=["tar", "tgz"])
@pytest.mark.parametrize("first", ["the bundle", "the single file"])
def test_a_bundle_and_a_single_file_are_pushed_in_the_order_of_arrival(make_registry, spool, first, compress):
    registry = make_registry()
    bundled = [image("team/a:1", "bundled", size=LARGE if first == "the bundle" else 0), image("team/b:1", "bundled")]
    single = image("team/a:1", "single", size=0 if first == "the bundle" else LARGE)
    files = {
        "@all.tar": compress(archives.podman_docker(*bundled)),
        "team\\a:1.tar": compress(archives.podman_docker(single)),
        "other.tar": archives.podman_docker(image("other:latest", "other")),
    }
    if first == "the single file":
        files = dict(reversed(files.items()))
    with RunningSpooler(spool, registry.url):
        for name, content in files.items():
            spool.drop(name, content)
        receipts = {name: spool.receipt(name) for name in files}

    last = single if first == "the bundle" else bundled[0]
    assert made_by(Reader(registry), "team/a", "1") == last.diff_ids[0]
    assert made_by(Reader(registry), "team/b", "1") == bundled[1].diff_ids[0]
    assert {receipt["attempts"] for receipt in receipts.values()} == {1}
    earlier, later = sorted((receipts["@all.tar"], receipts["team\\a:1.tar"]), key=lambda receipt: receipt["finished"])
    assert (earlier is receipts["@all.tar"]) is (first == "the bundle")
    assert earlier["finished"] <= later["started"]


def test_other_repositories_wait_for_a_bundle(make_registry, spool):
    registry = make_registry()
    with RunningSpooler(spool, registry.url):
        spool.drop("@all.tar", archives.podman_docker(image("team/a:1", "bundled", size=4 * LARGE)))
        spool.drop("other.tar", archives.podman_docker(image("other:latest", "other")))
        assert spool.receipt("@all.tar")["finished"] <= spool.receipt("other.tar")["started"]


def test_a_bundle_for_many_repositories(make_registry, spool):
    """More than there may be open files."""
    registry, names = make_registry(), [f"many/app{number}:1" for number in range(160)]
    limit = ("prlimit", "--nofile=120:120")
    with RunningSpooler(spool, registry.url, before=limit):
        spool.drop("@all.tar", archives.podman_docker(Image(names=tuple(names))))
        receipt = spool.receipt("@all.tar")
    assert [one["reference"] for one in receipt["images"]] == names
    assert len(Reader(registry).repositories()) == 160


@pytest.mark.timeout(300)
@pytest.mark.parametrize("spoolers", [1, 3])
def test_the_last_to_come_is_what_is_there(make_registry, spool, spoolers: int):
    """Many files at random, with several spoolers of which one is killed now and then."""
    registry, chance = make_registry(deletes=True), random.Random(spoolers)
    expected: dict[tuple[str, str], str | None] = {}
    with ExitStack() as stack:
        running = [stack.enter_context(RunningSpooler(spool, registry.url)) for _ in range(spoolers)]
        for number in range(FILES):
            images = [
                image(f"{repository}:{chance.randrange(2)}", str(number), size=chance.choice((0, 0, 0, 1 << 20)))
                for repository in chance.sample(REPOSITORIES, chance.randrange(1, 4))
            ]
            kind = chance.choice(("bundle", "bundle", "single", "deletion"))
            images = images if kind == "bundle" else images[:1]
            reference = images[0].names[0]
            if kind == "bundle":
                compress = chance.choice((bytes, gz))
                spool.drop(f"@{number}.tar", compress(archives.podman_docker(*images)))
            elif kind == "single":
                spool.drop(f"{reference.replace('/', chr(92))}.tar", archives.podman_docker(*images))
            else:
                spool.drop(f"{reference.replace('/', chr(92))}!", b"")
            for one in images:
                repository, _, tag = one.names[0].partition(":")
                expected[repository, tag] = None if kind == "deletion" else one.diff_ids[0]
            if spoolers > 1 and number % 15 == 14:
                victim = chance.choice(running)
                victim.kill()
                victim.start()
        assert spool.is_empty_before(time.monotonic() + ROUNDS_SECONDS), spool.waiting

    assert os.listdir(spool.folder / ".failed") == []
    reader = Reader(registry)
    for (repository, tag), diff_id in expected.items():
        held = made_by(reader, repository, tag) if reader.has(repository, tag) else None
        assert held == diff_id, f"{repository}:{tag}"
