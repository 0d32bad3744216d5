"""The daemon's memory is bounded, whatever it pushes: 128 MiB with four archives at once, one of them of 9 GiB."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from isal import igzip

from support.images import archives
from support.images.archive_parts import Image, big_layer, dumps, gz, make_tar
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

MIB = 1 << 20
LIMIT_BYTES = 128 * MIB
HUGE_BYTES = 9 << 30
HUGE_DIFF_ID = "sha256:cfbee1b311082090f6417b1026f9f83b2b3db46bc20ec64dff238d202c3782a6"
"""Of that many zeros, which are an empty tar."""
ZEROS_BYTES = 64 * MIB


def packed(content: bytes) -> bytes:
    return igzip.compress(content, compresslevel=1, mtime=0)


def write_huge_archive(path: Path) -> None:
    """A docker archive, of some 10 MB as .tgz, whose one layer has 9 GiB; a gzip file may consist of many."""
    info = tarfile.TarInfo("layer.tar")
    info.size = HUGE_BYTES
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [HUGE_DIFF_ID]}}
    item = {"Config": "config.json", "RepoTags": ["huge:1"], "Layers": ["layer.tar"]}
    zeros = packed(bytes(ZEROS_BYTES))
    with path.open("wb") as file:
        file.write(gz(info.tobuf(tarfile.GNU_FORMAT)))
        for _ in range(HUGE_BYTES // ZEROS_BYTES):
            file.write(zeros)
        file.write(gz(make_tar([("config.json", dumps(config)), ("manifest.json", dumps([item]))])))


@pytest.mark.timeout(240)
def test_four_archives_at_once(tmp_path: Path, make_registry) -> None:
    registry: RunningRegistry = make_registry()
    spool = Spool(tmp_path / "spool")
    write_huge_archive(tmp_path / "huge.tgz")
    big = Image(layers=(big_layer(40 * MIB, seed=1), big_layer(24 * MIB, seed=2)))
    names = {
        "huge.tgz": tmp_path / "huge.tgz",
        "docker.tar": archives.podman_docker(big),
        "docker-compressed.tgz": packed(archives.docker_legacy(big)),
        "oci.tar.gz": packed(archives.oci_archive(big, compress=packed)),
    }
    with RunningSpooler(spool, registry.url, "--queue", "4") as spooler:
        for name, content in names.items():
            spool.drop(name, content)
        spool.wait_until(lambda: not spool.waiting, timeout_seconds=200)
        peak = spooler.peak_bytes
    assert [path.read_text() for path in (spool.folder / ".failed").glob("*.error.json")] == []
    assert Reader(registry).tags("huge") == ["latest"]  # under a diff ID that the spooler has checked
    for repository in ("docker", "docker-compressed", "oci"):
        assert Reader(registry).image(repository).diff_ids == tuple(big.diff_ids)
    assert peak < LIMIT_BYTES, f"{peak / MIB:.0f} MiB"
