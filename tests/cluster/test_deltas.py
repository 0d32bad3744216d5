"""Rebuilt layers in a real cluster: little crosses, whatever fails meanwhile, and the image is the one it would be."""

from __future__ import annotations

import json
import os
import random
import tarfile
from pathlib import Path

import pytest

from cluster.breaks import Break, kill_registry, kill_spooler, replace_pod, restart_apiserver, restart_kubelet
from cluster.image_archives import diff_ids
from cluster.installation import Installation, finish
from delta.layers import File, tar
from localcluster.namespaces import wait_until
from support.images.archive_parts import Image
from support.images.archives import docker_25

SETTLED = [File(f"lib/{number:03}.py", random.Random(number).randbytes(9000).hex().encode()) for number in range(400)]
"""Some 7 MB that compress to the half."""
NEW_BYTES = 2_500_000
"""More than goes over the exec that is open already: a recipe of this size has a program of its own in the pod."""
RATE = "600k"
"""So that what is new in the layer takes four seconds, and is broken in the midst of it."""


def _write(path: Path, time: int, *more: File) -> Path:
    """Write an image of one layer, whose files are all of one time."""
    content = tar([file.at(time) for file in (*SETTLED, *more)], tarfile.GNU_FORMAT)
    path.write_bytes(docker_25(Image(layers=(content,))))
    return path


def _is_rebuilding() -> bool:
    """Whether a recipe is on its way: the program that the pod runs for it can be seen from outside."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if b"--remote" in words and b"rebuild" in words:
            return True
    return False


@pytest.fixture
def rebuilt(installation: Installation, repository: str, tmp_path: Path) -> Path:
    """An image in the registry, and the archive of it after its layer was built again."""
    installation.wait_until_ready()
    _write(tmp_path / "old.tar", 1_700_000_000)
    pushed = installation.spool("push", "old.tar", f"{repository}:v1", folder=tmp_path)
    assert 0 == pushed.code, pushed
    return _write(tmp_path / "new.tar", 1_700_009_000, File("lib/new", os.urandom(NEW_BYTES), 1_700_009_000))


def test_only_what_is_new_crosses(installation: Installation, rebuilt: Path, repository: str, tmp_path: Path) -> None:
    pushed = installation.spool("push", "--json", "--delta=always", "new.tar", f"{repository}:v2", folder=tmp_path)

    assert 0 == pushed.code, pushed
    receipt = json.loads(pushed.stdout)
    assert 1 == receipt["delta"]["layers"]
    assert receipt["delta"]["saved_bytes"] > 3_000_000
    assert 0 == installation.spool("pull", f"{repository}:v2", "-o", "back.tar", folder=tmp_path).code
    assert diff_ids(rebuilt) == diff_ids(tmp_path / "back.tar")
    assert receipt["digest"] == whole(installation, tmp_path)


@pytest.mark.usefixtures("rebuilt")
@pytest.mark.parametrize("fail", [restart_apiserver, restart_kubelet, kill_spooler, kill_registry, replace_pod])
def test_a_delta_goes_on(installation: Installation, repository: str, tmp_path: Path, fail: Break) -> None:
    flags = ("--delta=always", "--rate-limit", RATE)
    pushing = installation.start("push", *flags, "new.tar", f"{repository}:v2", folder=tmp_path)
    wait_until(_is_rebuilding, "a recipe on its way", None)

    fail(installation)
    pushed = finish(pushing)

    assert 0 == pushed.code, pushed
    installation.wait_until_ready()
    assert pushed.digest == installation.manifest(repository, "v2")[0] == whole(installation, tmp_path)


def whole(installation: Installation, folder: Path) -> str:
    """The digest of the same image when all of it is sent, by somebody whose machine has not seen it."""
    (folder / "elsewhere").mkdir()
    (folder / "new.tar").rename(folder / "elsewhere/new.tar")
    pushed = installation.spool("push", "--delta=never", "new.tar", "team/whole:v1", folder=folder / "elsewhere")
    assert 0 == pushed.code, pushed
    return pushed.digest
