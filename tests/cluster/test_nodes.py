"""Nodes pull what was pushed, by their own loopback: as `kubectl spool install` and as the Helm chart sets it up."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.installation import NAMESPACE, Installation
from localcluster.cluster import Cluster
from support.containers.machine import REGISTRY, SPOOLER
from support.manifests.helm import BUILD_SECONDS, CHART, program
from support.manifests.rendered import MANIFESTS

ADDRESS = "127.0.0.1:5001"
CHARTS_PORT = 5003
"""The default one is taken by the default installation."""


def run_pod(installation: Installation, name: str, image: str, namespace: str = NAMESPACE) -> str:
    """Start a pod from an image that its node has to ask the registry for; the digest of what runs."""
    kubectl = installation.cluster.kubectl
    kubectl("run", name, f"--namespace={namespace}", f"--image={image}", "--image-pull-policy=Always")
    kubectl("wait", f"pod/{name}", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=60s")
    found = json.loads(kubectl("get", f"pod/{name}", f"--namespace={namespace}", "--output=json"))
    (status,) = found["status"]["containerStatuses"]
    return str(status["imageID"].rpartition("@")[2])


def test_a_pod_runs_from_what_was_pushed(installation: Installation, tmp_path: Path) -> None:
    installation.kubectl("rollout", "status", "daemonset/registry-node-access", "--timeout=60s")
    archive = installation.cluster.folder / "pause.tar"

    pushed = installation.spool("push", str(archive), "team/pause:v1", folder=tmp_path)

    assert 0 == pushed.code, pushed
    assert pushed.digest == run_pod(installation, "app", f"{ADDRESS}/team/pause:v1")


def test_doctor_tries_to_pull_on_every_node(installation: Installation, tmp_path: Path) -> None:
    installation.kubectl("rollout", "status", "daemonset/registry-node-access", "--timeout=60s")
    archive = str(installation.cluster.folder / "pause.tar")
    assert 0 == installation.spool("push", archive, "team/tried:v1", folder=tmp_path).code

    found = installation.spool("doctor", "--pull-image", "team/tried:v1", folder=tmp_path, user="admin")

    assert 0 == found.code, found
    assert f": {ADDRESS}/team/tried:v1@sha256:" in found.stdout.splitlines()[-1]
    refused = installation.spool("doctor", "--pull-image", "team/tried:v1", folder=tmp_path)
    assert 1 == refused.code, refused
    assert "kubectl auth can-i list nodes" in refused.stdout


def test_nobody_pushes_by_way_of_the_nodes(installation: Installation) -> None:
    installation.kubectl("rollout", "status", "daemonset/registry-node-access", "--timeout=60s")
    url = f"http://{ADDRESS}/v2/team/app/blobs/uploads/"
    curl = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--request", "POST", url]
    asked = subprocess.run([*installation.cluster.nodes[0].enter("--net"), *curl], check=True, stdout=subprocess.PIPE)
    assert b"405" == asked.stdout


def test_everybody_may_read_where_the_registry_is(installation: Installation) -> None:
    installation.cluster.kubectl("apply", f"--kustomize={MANIFESTS / 'local-registry-hosting'}")
    get = ["kubectl", "get", "configmap", "local-registry-hosting", "--namespace=kube-public", "--output=json"]
    stranger = installation.cluster.command("stranger")
    try:
        found = json.loads(subprocess.run([*stranger, *get], check=True, stdout=subprocess.PIPE).stdout)
    finally:
        installation.cluster.kubectl("delete", f"--kustomize={MANIFESTS / 'local-registry-hosting'}")
    assert ADDRESS == yaml.safe_load(found["data"]["localRegistryHosting.v1"])["hostFromContainerRuntime"]


@pytest.mark.timeout(BUILD_SECONDS + 300)
def test_the_chart_sets_up_the_same(cluster: Cluster, installation: Installation, tmp_path: Path) -> None:
    helm = [*cluster.command(), program()]
    values = {
        "image.repository": SPOOLER.rpartition(":")[0],
        "registry.image.tag": REGISTRY.rpartition(":")[2],
        "registry.image.digest": "",
        "nodeAccess.port": CHARTS_PORT,
    }
    flags = ["--namespace=chart", "--wait", "--timeout=180s"]
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(nested(values)))

    install = ["install", "spooler", str(CHART), "--create-namespace", f"--values={tmp_path / 'values.yaml'}"]
    subprocess.run([*helm, *install, *flags], check=True)
    try:
        archive = cluster.folder / "pause.tar"
        pushed = installation.spool("push", str(archive), "app:v1", folder=tmp_path, user="admin", namespace="chart")
        assert 0 == pushed.code, pushed
        address = f"127.0.0.1:{CHARTS_PORT}"
        assert pushed.digest == run_pod(installation, "app", f"{address}/app:v1", "chart")
    finally:
        subprocess.run([*helm, "uninstall", "spooler", *flags], check=True)
    kinds = "deployments,daemonsets,services,persistentvolumeclaims"
    left = cluster.kubectl("get", kinds, "--namespace=chart", "--output=name").split()
    assert ["registry-spooler-registry", "registry-spooler-spool"] == sorted(name.rpartition("/")[2] for name in left)


def nested(values: dict[str, object]) -> dict[str, object]:
    """Values by their dotted names as a chart reads them."""
    found: dict[str, object] = {}
    for name, value in values.items():
        *folders, last = name.split(".")
        here = found
        for folder in folders:
            here = here.setdefault(folder, {})
        here[last] = value
    return found
