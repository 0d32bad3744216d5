"""What execs start in a real pod hands its work to the daemon: many pushers at once, in one small container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.image_archives import write_archive
from cluster.installation import Installation, finish

MEMORY_BYTES = 200 << 20


def spooler(installation: Installation) -> dict[str, Any]:
    (pod,) = installation.pods()
    (found,) = (status for status in pod["status"]["containerStatuses"] if status["name"] == "spooler")
    return dict(found)


def peak_bytes(container: dict[str, Any]) -> int:
    """The most memory that a container has had, page cache included."""
    number = container["containerID"].removeprefix("containerd://")
    folders = [path for path in Path("/sys/fs/cgroup").glob(f"**/*{number}*") if path.is_dir()]
    names = ("memory.peak", "memory.max_usage_in_bytes")
    (found,) = [path / name for path in folders for name in names if (path / name).exists()]
    return int(found.read_text())


def test_ten_push_at_once(installation: Installation, tmp_path: Path) -> None:
    before = spooler(installation)
    for number in range(10):
        write_archive(tmp_path / f"{number}.tar", layers=2, size_bytes=16 << 20)

    pushing = [
        installation.start("push", f"{number}.tar", f"team/ten-{number}:v1", folder=tmp_path) for number in range(10)
    ]
    outcomes = [finish(process) for process in pushing]

    assert [0] * 10 == [outcome.code for outcome in outcomes], outcomes
    after = spooler(installation)
    assert (before["containerID"], before["restartCount"]) == (after["containerID"], after["restartCount"])
    assert peak_bytes(after) < MEMORY_BYTES
    calls = json.loads(installation.spool("status", "--json", folder=tmp_path).stdout)["remote"]["calls"]
    assert calls["receive_done"] >= 30  # two layers and the manifest of each


def test_an_unchanged_image_is_asked_for_once(installation: Installation, tmp_path: Path) -> None:
    write_archive(tmp_path / "app.tar", layers=4, size_bytes=4 << 20)
    first = installation.spool("push", "app.tar", "team/unchanged:v1", folder=tmp_path)
    again = installation.spool("push", "--json", "app.tar", "team/unchanged:v1", folder=tmp_path)

    assert (0, 0) == (first.code, again.code), (first, again)
    receipt = json.loads(again.stdout)
    assert ({"uploaded": 0, "existing": 5, "mounted": 0}, first.digest) == (receipt["blobs"], receipt["digest"])
