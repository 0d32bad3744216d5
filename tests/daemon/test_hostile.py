"""The real daemon beside archives that are made to hurt: it answers, pushes the others, stops when asked, in memory."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from support.images import archives, hostile
from support.images.archive_parts import Image
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

MIB = 1 << 20
GIB = 1 << 30
LIMIT_BYTES = 256 * MIB
INNOCENT_SECONDS = 60.0
"""A limit for a machine that does much else; it takes two or three on an idle one."""
ANSWER_SECONDS = 20.0
"""Likewise; it takes some hundredths."""


def endless(kind: str) -> bytes:
    """A layer of zeros that takes hours to go through, or a good part of one."""
    return hostile.COMPRESS[kind](hostile.header("layer.tar", 1 << 50)) + hostile.zeros(kind, 40 * GIB)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "one-manifest.tgz": (hostile.one_manifest_listed_often, "more than 10,000 are refused"),
    "names.tgz": (hostile.endless_names, "take more than 16 MiB"),
    "folders.tgz": (hostile.deep_folders, "take more than 16 MiB"),
    "no-text.tgz": (hostile.names_that_are_no_text, "take more than 16 MiB"),
    "values.tgz": (lambda: hostile.with_index(hostile.many_values(2_000_000)), "more than 250,000 values"),
    "records.tgz": (hostile.records_without_end, "more than 1,000,000 PAX records"),
    "sparse.tgz": (hostile.a_sparse_map_without_end, "more than 32 MiB"),
    "indexes.tgz": (hostile.indexes_within_indexes, "2000 manifests in one image"),
    "empty.tgz": (lambda: hostile.joined(hostile.header(f"src/{at}") for at in range(20_000)), "not of an image"),
    "circle.tgz": (hostile.links_in_a_circle, "lead in a circle"),
    "manifests.tgz": (lambda: hostile.one_manifest_listed_often(count=9_000), "that its index lists"),
    "documents.tgz": (hostile.many_indexes, "no index of images at its top"),
}


class Prober:
    """Asks for `/live` again and again, in a thread; an answer that is late, or another than 200, ends that."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers = 0
        self._over = Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            with urllib.request.urlopen(f"{self.url}/live", timeout=ANSWER_SECONDS) as answer:
                assert answer.status == 200
                self.answers += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = Thread(target=self.run)
        thread.start()
        try:
            yield
            assert thread.is_alive(), "/live was silent"
            assert self.answers
        finally:
            self._over.set()
            thread.join()


def push_an_innocent(spool: Spool, registry: RunningRegistry, name: str, limit_seconds: float) -> None:
    """Push a file that does no harm."""
    spool.drop(f"{name}.tar", archives.podman_docker(Image()))
    spool.receipt(f"{name}.tar", limit_seconds)
    assert Reader(registry).image(name).diff_ids == tuple(Image().diff_ids)


@pytest.mark.timeout(300)
def test_zeros_without_end_beside_an_innocent_file(tmp_path: Path, make_registry) -> None:
    """Work without end holds all places but the one for quick files, and is given up when the daemon is to stop."""
    registry: RunningRegistry = make_registry()
    spool = Spool(tmp_path / "spool")
    with RunningSpooler(spool, registry.url, "--queue", "4", "--shutdown-grace", "1") as spooler:
        with Prober(spooler.health_url).running():
            for kind in sorted(hostile.COMPRESS):
                spool.drop(f"{kind}.tgz", endless(kind))
            for at in range(2):
                push_an_innocent(spool, registry, f"innocent-{at}", INNOCENT_SECONDS)
            peak = spooler.peak_bytes
        assert len(spool.waiting) == 4
        assert peak < LIMIT_BYTES, f"{peak / MIB:.0f} MiB"
        assert spooler.terminate() == 0  # within the 40 s that the fixture gives it
    assert len(spool.waiting) == 4


@pytest.mark.timeout(300)
def test_all_that_is_refused(tmp_path: Path, make_registry) -> None:
    """Four at once, all the time: each fails with its sentence, and what does no harm is pushed between them."""
    registry: RunningRegistry = make_registry()
    spool = Spool(tmp_path / "spool")
    content = {name: hostile.packed(make()) for name, (make, _) in REFUSED.items()}
    with RunningSpooler(spool, registry.url, "--queue", "4") as spooler, Prober(spooler.health_url).running():
        for name in REFUSED:
            spool.drop(name, content[name])
        push_an_innocent(spool, registry, "innocent", 150)
        spool.wait_until(lambda: not spool.waiting, timeout_seconds=150)
        peak = spooler.peak_bytes
    for name, (_, sentence) in REFUSED.items():
        assert sentence in spool.failure(name)["error"]
    assert peak < LIMIT_BYTES, f"{peak / MIB:.0f} MiB"
