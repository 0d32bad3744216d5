"""What is large: two gibibytes in constant memory at both ends, and an image of 100 MB that is pushed twice."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from support.cluster.apiserver import ApiServer
from support.cluster.terminal import Terminal
from support.cluster.wire import Wire
from support.images import archives
from support.images.archive_parts import Image, layer, make_tar
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BOUND_BYTES = 150 * MIB


@pytest.fixture
def terminal(tmp_path: Path, api: ApiServer) -> Terminal:
    """Without the wire between: there is nothing to count, and much to carry. Each end is weighed as a process."""
    api.has_daemon = False
    return Terminal(tmp_path, api.kubeconfig(tmp_path / "kubeconfig.direct"))


@pytest.fixture(scope="module")
def image_of_100_mb() -> bytes:
    """A docker archive whose layers compress to half."""
    half = os.urandom(25 * MIB) + bytes(25 * MIB)
    layers = (layer("small"), make_tar([("one", half)]), make_tar([("two", half[::-1])]))
    return archives.podman_docker(Image(layers=layers))


@pytest.mark.timeout(300)
async def test_an_image_of_100_mb_is_sent_once(
    terminal: Terminal,
    kubeconfig: Path,
    wire: Wire,
    api: ApiServer,
    registry: RunningRegistry,
    repository: str,
    image_of_100_mb: bytes,
    tmp_path: Path,
) -> None:
    api.registry = registry.url
    (tmp_path / "app.tar").write_bytes(image_of_100_mb)
    process = await terminal.start(["kubectl-spool", "push", "app.tar", f"{repository}:1"])
    here = asyncio.ensure_future(peak_bytes(process))
    stdout, stderr = await process.communicate()
    assert 0 == process.returncode, stderr
    assert [Reader(registry).image(repository, "1").digest] == stdout.decode().split()
    assert await here < BOUND_BYTES
    assert 0 < max(running.peak_bytes for running in api.executions) < BOUND_BYTES
    # Now over the wire, which counts.
    again = await Terminal(tmp_path, kubeconfig).spool("push", "app.tar", f"{repository}:2")
    assert stdout.decode().split() == again.lines
    assert 0 < wire.sent < 64 * KIB


@pytest.mark.timeout(300)
async def test_two_gibibytes_in_constant_memory(terminal: Terminal, api: ApiServer, tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(2 * GIB)
        file.seek(GIB)
        file.write(b"in the middle")
    process = await terminal.start(["kubectl-spool", "publish", "large.bin"])
    here = asyncio.ensure_future(peak_bytes(process))
    _, stderr = await process.communicate()
    assert 0 == process.returncode, stderr
    assert 2 * GIB == (api.spool / "large.bin").stat().st_size
    assert 2 * GIB == max(running.received for running in api.executions)
    assert await here < BOUND_BYTES
    assert 0 < max(running.peak_bytes for running in api.executions) < BOUND_BYTES


async def peak_bytes(process: asyncio.subprocess.Process) -> int:
    """The most memory that a process had, as seen every now and then until its end."""
    peak = 0
    while process.returncode is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        if found := re.search(r"VmHWM:\s+(\d+) kB", text):
            peak = max(peak, int(found[1]) * KIB)
        await asyncio.sleep(0.1)
    return peak
