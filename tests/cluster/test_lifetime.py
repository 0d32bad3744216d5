"""What was pushed outlives upgrades, drains, restarts of the node and a removal that keeps the data."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.image_archives import write_archive
from cluster.installation import DEPLOYMENT, NAMESPACE, Installation
from localcluster.namespaces import wait_until
from support.containers.machine import REGISTRY, SPOOLER

NEWER = SPOOLER.rpartition(":")[0] + ":newer"
KINDS = "deployments,daemonsets,services,serviceaccounts,roles,networkpolicies,poddisruptionbudgets"

Change = Callable[[Installation], None]


def upgrade(installation: Installation) -> None:
    installation.cluster.nodes[0].run("ctr", "--namespace=k8s.io", "images", "tag", "--force", SPOOLER, NEWER)
    installation.install("--image", NEWER, "--registry-image", REGISTRY)
    (pod,) = installation.pods()
    assert NEWER in [container["image"] for container in pod["spec"]["containers"]]


def drain(installation: Installation) -> None:
    kubectl = installation.cluster.kubectl
    try:
        kubectl("drain", "node1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s")
    finally:
        kubectl("uncordon", "node1")


def roll_out(installation: Installation) -> None:
    installation.kubectl("rollout", "restart", DEPLOYMENT)


def restart_node(installation: Installation) -> None:
    installation.cluster.restart("containerd")
    installation.cluster.restart("kubelet")
    command = [*installation.cluster.command(), "kubectl", "exec", f"--namespace={NAMESPACE}", DEPLOYMENT, "--", "true"]

    def knows_the_pod() -> bool:
        return 0 == subprocess.run(command, check=False, capture_output=True).returncode

    wait_until(knows_the_pod, "the kubelet", installation.cluster.nodes[0].folder / "logs" / "kubelet.log")


def reinstall(installation: Installation) -> None:
    removed = installation.spool("uninstall", "--keep-data", "--yes", folder=installation.cluster.folder, user="admin")
    assert 0 == removed.code, removed
    assert 2 == len(installation.kubectl("get", "persistentvolumeclaims", "--output=name").split())
    installation.install("--image", SPOOLER, "--registry-image", REGISTRY)


@pytest.mark.parametrize("change", [upgrade, drain, roll_out, restart_node, reinstall])
def test_images_and_files_are_kept(installation: Installation, tmp_path: Path, repository: str, change: Change) -> None:
    write_archive(tmp_path / "app.tar")
    kept = installation.spool("push", "app.tar", f"{repository}:v1", folder=tmp_path)
    assert 0 == kept.code, kept
    waiting = f"/spool/{repository.rpartition('/')[2]}.tar~"
    installation.as_pusher("cp", "app.tar", f"{installation.pod}:{waiting}", folder=tmp_path)

    change(installation)

    installation.wait_until_ready()
    assert kept.digest == installation.manifest(repository, "v1")[0]
    name = f"{repository}:v2.tar".replace("/", "\\")
    installation.as_pusher("exec", installation.pod, "--", "mv", waiting, f"/spool/{name}", folder=tmp_path)
    waited = installation.spool("wait", name, folder=tmp_path)
    assert 0 == waited.code, waited
    assert kept.digest == installation.manifest(repository, "v2")[0]


def test_uninstalling_leaves_nothing(installation: Installation, tmp_path: Path) -> None:
    asked = installation.spool("uninstall", folder=tmp_path, user="admin")
    assert 1 == asked.code, asked
    assert "nothing was removed" in asked.stderr
    assert installation.pods()

    removed = installation.spool("uninstall", "--yes", folder=tmp_path, user="admin")

    assert 0 == removed.code, removed
    installation.kubectl("wait", "pods", "--all", "--for=delete", "--timeout=60s")
    label = "--selector=app.kubernetes.io/part-of=registry-spooler"
    left = json.loads(installation.kubectl("get", f"{KINDS},persistentvolumeclaims", label, "--output=json"))["items"]
    assert [] == [(found["kind"], found["metadata"]["name"]) for found in left]
    public = installation.cluster.kubectl("get", "configmaps", "--namespace=kube-public", label, "--output=name")
    assert "" == public
    installation.install("--image", SPOOLER, "--registry-image", REGISTRY)
