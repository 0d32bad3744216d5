"""The bench measures what it says: archives that others read, a floor that really pushes, honest arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bench import floor, history
from bench.archives import MIB, Family, Shelf
from bench.contestants import Sample
from bench.process import RunFailed, run_measured
from bench.pushes import Row
from bench.registry import Registry

PYTHON = sys.executable


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Shelf(tmp_path_factory.mktemp("shelf"), lambda _: None).family([2 * MIB, MIB])


def sample(wall_seconds: float) -> Sample:
    return Sample(**{field.name: 1 for field in fields(Sample)} | {"wall_seconds": wall_seconds})


def run_floor(work: str, source: Path, registry: Registry, argument: str, log: Path) -> None:
    run_measured([PYTHON, floor.__file__, work, str(source), registry.host, argument], log)


def skopeo_inspect(archive: str) -> dict[str, Any]:
    result = subprocess.run(["skopeo", "inspect", archive], capture_output=True, check=True)
    return json.loads(result.stdout)


def manifest_of(registry: Registry) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{registry.host}/v2/bench/manifests/latest")
    request.add_header("Accept", floor.MANIFEST_TYPE)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_skopeo_reads_the_archives_and_finds_the_same_layers(family: Family) -> None:
    docker = skopeo_inspect(f"docker-archive:{family.docker_tar}")
    oci = skopeo_inspect(f"oci-archive:{family.oci_tar}")
    assert 2 == len(docker["Layers"]) == len(oci["Layers"])
    assert docker["RepoTags"] == []
    assert docker["Os"] == oci["Os"] == "linux"


@pytest.mark.parametrize("form", ["docker_tar", "docker_tgz", "oci_tar", "oci_tgz"])
def test_the_floor_pushes_every_form(family: Family, form: str, tmp_path: Path) -> None:
    with Registry() as registry:
        run_floor("archive", getattr(family, form), registry, "bench", tmp_path / "log")
        assert registry.has_tag("bench", "latest")
        layers = manifest_of(registry)["layers"]
        assert 2 == len(layers)
        assert registry.stored_bytes() > sum(layer["size"] for layer in layers) > 0.2 * MIB


def test_packed_or_not_the_floor_pushes_the_same(family: Family, tmp_path: Path) -> None:
    manifests = []
    for archive in (family.docker_tar, family.docker_tgz):
        with Registry() as registry:
            run_floor("archive", archive, registry, "bench", tmp_path / "log")
            manifests.append(manifest_of(registry))
    assert manifests[0] == manifests[1]


def test_the_bare_loop_sends_the_requests_that_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one.txt").write_bytes(b"one\n" * 2500)
    wanted = {"HEAD blobs": 1, "POST uploads": 2, "PATCH uploads": 1, "PUT uploads": 2, "PUT manifests": 1}
    with Registry() as registry:
        run_floor("files", tmp_path / "files", registry, json.dumps(wanted), tmp_path / "log")
        assert registry.has_tag("one", "latest")
        assert wanted == registry.requests()


def test_the_measured_peak_is_the_programs_own_and_not_that_of_who_started_it(tmp_path: Path) -> None:
    ballast = bytearray(200 * MIB)
    usage = run_measured([PYTHON, "-c", "x = b'x' * (50 << 20); import time; time.sleep(0.1)"], tmp_path / "log")
    assert 50 * MIB < usage.peak_bytes < 100 * MIB < len(ballast)
    assert 0.1 < usage.wall_seconds
    assert 0 < usage.cpu_seconds < usage.wall_seconds


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="ended with 3: no room"):
        run_measured([PYTHON, "-c", "import sys; print('no room'); sys.exit(3)"], tmp_path / "log")


def test_a_ratio_is_the_median_of_pairs_and_skips_rounds_in_which_one_failed() -> None:
    mine = Row(case="c", contestant="a", samples=[sample(1), None, sample(2), sample(9)])
    theirs = Row(case="c", contestant="b", samples=[sample(2), sample(1), sample(4), sample(3)])
    assert 0.5 == mine.ratio(theirs, "wall_seconds")
    assert 2 == mine.median("wall_seconds")


def test_history_tells_what_became_slower_on_the_same_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    before = {"machine": "m", "kind": "k", "figures": {"start": 0.2, "peak": 100.0, "gone": 1.0}}
    now = {"machine": "m", "kind": "k", "figures": {"start": 0.3, "peak": 101.0, "new": 1.0}}
    history.remember(before)
    history.remember(before | {"machine": "another"})
    found = history.last_like("m", "k")
    assert found is not None
    assert ["start: 0.2 -> 0.3 (+50%)"] == history.compare(found, now)
    assert history.last_like("m", "another kind") is None
