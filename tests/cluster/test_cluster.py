"""`./dev cluster` itself: two nodes, beside the cluster of the other tests, and nothing left of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import cgroups
from localcluster.cluster import Cluster
from localcluster.worker import PAUSE


@pytest.fixture
def two_nodes(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of its own name."""
    beside = Cluster("tests-beside")
    beside.down()
    beside.up(cluster.programs, nodes=2)
    try:
        yield beside
    finally:
        beside.down()


def test_pods_run_on_both_nodes_and_nothing_is_left_of_them(cluster: Cluster, two_nodes: Cluster) -> None:
    for name in ("node1", "node2"):
        overrides = json.dumps({"spec": {"nodeName": name, "terminationGracePeriodSeconds": 0}})
        two_nodes.kubectl(
            "run", f"on-{name}", f"--image={PAUSE}", "--image-pull-policy=Never", f"--overrides={overrides}"
        )
    two_nodes.kubectl("wait", "--for=condition=Ready", "pod/on-node1", "pod/on-node2", "--timeout=60s")
    address = two_nodes.kubectl("get", "pod", "on-node2", "--output=jsonpath={.status.podIP}")

    # Nothing listens in that pod, which is what its own network answers at once.
    refused = _ask(two_nodes, address)
    assert 7 == refused.returncode, refused
    assert "" == cluster.kubectl("get", "pods", "--output=name")

    holders = [node.pid for node in two_nodes.nodes]
    two_nodes.down()

    assert not any(Path(f"/proc/{pid}").exists() for pid in holders)
    assert not two_nodes.folder.exists()
    assert [] == list(Path("/sys/fs/cgroup").glob(f"**/{cgroups.name_of(two_nodes.folder)}"))


def test_what_a_dead_cluster_left_is_cleaned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localcluster.cluster.FOLDER", tmp_path)
    dead = Cluster("dead")
    (dead.folder / "node1").mkdir(parents=True)
    (dead.folder / "node1" / "init.json").write_text(
        json.dumps({"pid": 1, "started": 0})
    )  # the number is another's now
    cgroups.make(dead.folder, 1)

    assert not dead.is_running
    dead.down()

    assert not dead.folder.exists()
    assert [] == list(Path("/sys/fs/cgroup").glob(f"**/{cgroups.name_of(dead.folder)}"))


def _ask(cluster: Cluster, address: str) -> subprocess.CompletedProcess[str]:
    command = [*cluster.nodes[0].enter("--net"), "curl", "--silent", "--max-time", "20", f"http://{address}:1/"]
    return subprocess.run(command, check=False, capture_output=True, text=True)
