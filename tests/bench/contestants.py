"""Who pushes one archive into one fresh registry: the product, `skopeo copy`, the floor."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.process import RunFailed, Usage, cpu_seconds, run_measured
from bench.registry import Registry
from bench.spooler import Spooler, clean_environment, program

REPOSITORY = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One archive that all contestants push."""

    name: str
    archive: Path
    is_oci: bool
    is_packed: bool
    """Is the whole archive within gzip?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one push took of the machine."""

    wall_seconds: float
    client_cpu_seconds: float
    registry_cpu_seconds: float
    peak_bytes: int
    stored_bytes: int


Push = Callable[[Case, Registry, Path], Usage]


def push_with_spooler(case: Case, registry: Registry, folder: Path) -> Usage:
    """The product: `mv` into a daemon's spool. Its start is not part of the time."""
    with Spooler(folder, registry) as spooler:
        suffix = ".tgz" if case.is_packed else ".tar"
        return spooler.push([spooler.stage(case.archive, REPOSITORY + suffix)])


def push_with_digests_only(case: Case, registry: Registry, folder: Path) -> Usage:
    """The product told to leave digests to the registry, and not to look into compressed layers."""
    with Spooler(folder, registry, "--verify", "digest") as spooler:
        suffix = ".tgz" if case.is_packed else ".tar"
        return spooler.push([spooler.stage(case.archive, REPOSITORY + suffix)])


def push_with_client(case: Case, registry: Registry, folder: Path) -> Usage:
    """The product's command line, its start included."""
    command = [program("registry-client"), "push", "--registry", registry.host, str(case.archive), REPOSITORY]
    return run_measured(command, folder / "client.log", environment=clean_environment())


def push_with_skopeo(case: Case, registry: Registry, folder: Path) -> Usage:
    """Skopeo; a packed docker archive goes through `gunzip` first, since some of them it cannot read itself."""
    archive, first = str(case.archive), ""
    if case.is_packed and not case.is_oci:
        archive, first = str(folder / "plain.tar"), f"gunzip -c '{case.archive}' > '{folder}/plain.tar' && "
    source = f"{'oci' if case.is_oci else 'docker'}-archive:{archive}"
    copy = f"exec skopeo --insecure-policy --tmpdir '{folder}' copy --quiet --dest-tls-verify=false"
    script = f"{first}{copy} '{source}' docker://{registry.host}/{REPOSITORY}:latest"
    return run_measured(["sh", "-c", script], folder / "skopeo.log", environment=clean_environment())


def push_with_floor(case: Case, registry: Registry, folder: Path) -> Usage:
    """The least code; see `floor`."""
    floor = Path(__file__).with_name("floor.py")
    command = [sys.executable, str(floor), "archive", str(case.archive), registry.host, REPOSITORY]
    return run_measured(command, folder / "floor.log", environment=clean_environment())


CONTESTANTS: dict[str, Push] = {
    "spooler": push_with_spooler,
    "digests": push_with_digests_only,
    "client": push_with_client,
    "skopeo": push_with_skopeo,
    "floor": push_with_floor,
}


DAEMONS = ("spooler", "digests")


def takes_part(contestant: str, case: Case) -> bool:
    """Layers of a docker archive are plain: their diff IDs are checked in passing, whatever one asks for."""
    return contestant != "digests" or case.is_oci


def push_once(contestant: str, case: Case, scratch: Path, *, cold: bool = False) -> Sample:
    """One push into a fresh registry. RunFailed when the tag is not there afterwards."""
    place = scratch / "run"
    if contestant not in DAEMONS:
        place.mkdir()
    settle(case.archive, cold=cold)
    with Registry() as registry:
        before = cpu_seconds(registry.pid)
        try:
            usage = CONTESTANTS[contestant](case, registry, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if not registry.has_tag(REPOSITORY, "latest"):
            raise RunFailed("it says that it pushed, but the tag is not there")
        return Sample(
            wall_seconds=usage.wall_seconds,
            client_cpu_seconds=usage.cpu_seconds,
            registry_cpu_seconds=cpu_seconds(registry.pid) - before,
            peak_bytes=usage.peak_bytes,
            stored_bytes=registry.stored_bytes(),
        )


def settle(archive: Path, *, cold: bool = False) -> None:
    """Have the archive in the page cache, or out of it, and nothing left to be written back from earlier runs."""
    os.sync()
    with archive.open("rb", buffering=0) as file:
        if cold:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return
        while file.read(1 << 20):
            pass
