"""`push --set` in a real cluster, as somebody with the two roles that docs/pushing.md asks for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cluster.installation import Installation
from localcluster.worker import PAUSE

NAMESPACE = "shop"
ROLE = re.compile(r"^```yaml\n(apiVersion: rbac.*?kind: Role.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="session")
def shop(installation: Installation) -> Installation:
    """A namespace in which pushers may set the images of deployments."""
    kubectl = installation.cluster.kubectl
    kubectl("create", "namespace", NAMESPACE)
    (role,) = ROLE.findall((Path(__file__).parents[2] / "docs/pushing.md").read_text())
    kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", text=role)
    kubectl("create", "rolebinding", "setters", f"--namespace={NAMESPACE}", "--role=set-image", "--group=pushers")
    installation.kubectl("rollout", "status", "daemonset/registry-node-access", "--timeout=60s")
    return installation


def _deploy(installation: Installation, name: str, *command: str) -> None:
    flags = [f"--namespace={NAMESPACE}", f"--image={PAUSE}", *(("--", *command) if command else ())]
    installation.cluster.kubectl("create", "deployment", name, *flags)


def _push(installation: Installation, folder: Path, reference: str, workload: str) -> tuple[int, str, str]:
    archive = str(installation.cluster.folder / "pause.tar")
    flags = ("--set", workload, "--set-namespace", NAMESPACE)
    done = installation.spool("push", archive, reference, *flags, folder=folder)
    return done.code, done.stdout.strip(), done.stderr


def test_a_deployment_runs_what_was_pushed(shop: Installation, tmp_path: Path) -> None:
    _deploy(shop, "web")

    code, image, told = _push(shop, tmp_path, "shop/web:v1", "deployment/web")

    assert 0 == code, told
    assert "deployment/web: 1 of 1 pods updated, 1 available\n" in told
    selected = ("--selector=app=web", "--output=json", f"--namespace={NAMESPACE}")
    pods = json.loads(shop.cluster.kubectl("get", "pods", *selected))["items"]
    (pod,) = (pod for pod in pods if "deletionTimestamp" not in pod["metadata"])
    (status,) = pod["status"]["containerStatuses"]
    assert (image, True) == (pod["spec"]["containers"][0]["image"], status["ready"])
    assert image.rpartition("@")[2] == status["imageID"].rpartition("@")[2]


def test_a_rollout_that_fails_says_why(shop: Installation, tmp_path: Path) -> None:
    _deploy(shop, "broken", "/pause", "--", "/no-such-program")
    # Or the rollout is complete in the instant before the program ends.
    lasting = json.dumps({"spec": {"minReadySeconds": 60}})
    shop.cluster.kubectl("patch", "deployment/broken", f"--namespace={NAMESPACE}", "--patch", lasting)

    code, image, told = _push(shop, tmp_path, "shop/broken:v1", "deployment/broken:pause")

    assert (1, True) == (code, image.startswith("127.0.0.1:5001/shop/broken:v1@sha256:")), told
    assert "deployment/broken got the new image, but its pods did not become ready: pod broken-" in told
    assert "CrashLoopBackOff" in told
    assert "BackOff: Back-off restarting failed container pause in pod broken-" in told
    assert "No such file or directory" in told


def test_other_workloads_are_not_for_everybody_who_pushes(shop: Installation, tmp_path: Path) -> None:
    code, image, told = _push(shop, tmp_path, "shop/db:v1", "statefulset/db")

    assert (4, "") == (code, image), told
    assert "kubectl auth can-i get statefulsets -n shop" in told
