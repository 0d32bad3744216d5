"""The recipes for Skaffold and Tilt in a real cluster: by the tool where it is, else by its commands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.installation import DEPLOYMENT, NAMESPACE, Installation
from recipe_page import DOCKER, NODES, custom_build, deployment, recipe
from support.cluster.deploy_tools import SKAFFOLD, TILT

NO_NEWS = ("SKAFFOLD_UPDATE_CHECK=false", "SKAFFOLD_INTERACTIVE=false", "TILT_DISABLE_ANALYTICS=1", "DO_NOT_TRACK=1")


@dataclass(frozen=True)
class Developer:
    """Somebody in a folder of their own, whose docker has built an image, and whose context names the namespace."""

    installation: Installation
    folder: Path

    def command(self, *words: str) -> list[str]:
        """The command line of something that they run."""
        path = f"PATH={self.folder}:{Path(sys.executable).parent}:"
        start = self.installation.cluster.command()
        own = [word.replace("PATH=", path, 1) if word.startswith("PATH=") else word for word in start]
        return [*own, f"KUBECONFIG={self.folder / 'kubeconfig'}", f"HOME={self.folder}", *NO_NEWS, *words]

    def run(self, *words: str) -> str:
        """Run a program, which has to succeed; its standard output."""
        done = subprocess.run(self.command(*words), cwd=self.folder, check=False, capture_output=True, text=True)
        assert 0 == done.returncode, (done.stdout, done.stderr)
        return done.stdout

    def pushed(self, reference: str) -> str:
        """The digest that the registry has for a tag."""
        return self.run("kubectl", "spool", "inspect", reference, "--format=digest").strip()

    @contextmanager
    def forwarded(self) -> Iterator[None]:
        """Have the registry's port here, as the page says."""
        command = self.command("kubectl", "port-forward", DEPLOYMENT, f"{NODES.rpartition(':')[2]}:5000")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
            try:
                assert forwarding.stdout is not None
                assert "Forwarding from" in forwarding.stdout.readline()
                yield
            finally:
                forwarding.kill()

    def write_deployment(self, name: str, image: str) -> None:
        """Write the web.yaml of a recipe, with pods that do nothing."""
        document = deployment(name, image)
        (container,) = document["spec"]["template"]["spec"]["containers"]
        container["command"] = ["/pause", "-P"]
        (self.folder / "web.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def developer(installation: Installation, tmp_path: Path) -> Iterator[Developer]:
    """Somebody at work; what they have deployed goes with them, since other tests expect an empty namespace."""
    installation.wait_until_ready()
    installation.kubectl("rollout", "status", "daemonset/registry-node-access", "--timeout=60s")
    shutil.copy(installation.cluster.kubeconfig("admin"), tmp_path / "kubeconfig")
    shutil.copy(installation.cluster.folder / "pause.tar", tmp_path / "saved.tar")
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    somebody = Developer(installation, tmp_path)
    somebody.run("kubectl", "config", "set-context", "--current", f"--namespace={NAMESPACE}")
    yield somebody
    gone = ("--ignore-not-found", "--cascade=foreground", "--timeout=120s")
    installation.kubectl("delete", *gone, "deployments", "skaffolds", "tilts")


def test_skaffold_deploys_what_its_build_has_pushed(developer: Developer) -> None:
    image = f"{NODES}/skaffolds"
    text = recipe("Skaffold", "yaml").replace(f"{NODES}/app", image)
    (developer.folder / "skaffold.yaml").write_text(text)
    developer.write_deployment("skaffolds", image)
    with developer.forwarded():
        if program := SKAFFOLD.find():
            developer.run(program, "run", "--cache-artifacts=false")
        else:
            (artifact,) = yaml.safe_load(text)["build"]["artifacts"]
            command = artifact["custom"]["buildCommand"]
            pushed = developer.run("env", f"IMAGE={image}:v1", "PUSH_IMAGE=true", "sh", "-c", command)
            developer.write_deployment("skaffolds", pushed.splitlines()[-1])
            developer.run("kubectl", "apply", "--filename=web.yaml")

    image_of_pod, digest = running(developer.installation, "skaffolds")
    tag = image_of_pod.partition("@")[0].rpartition(":")[2]
    assert developer.pushed(f"skaffolds:{tag}") == digest == image_of_pod.rpartition("@")[2]


def test_tilt_deploys_what_its_build_has_pushed(developer: Developer) -> None:
    text = recipe("Tilt", "starlark").replace("'app'", "'tilts'").replace("app:tilt", "tilts:tilt")
    (developer.folder / "Tiltfile").write_text(f"allow_k8s_contexts('local')\n{text}")
    developer.write_deployment("tilts", "tilts")
    if program := TILT.find():
        developer.run(program, "ci", "--web-mode=prod")  # without its page, which is no part of the module
    else:
        call = custom_build(text)
        developer.run("sh", "-c", call["command"])
        developer.write_deployment("tilts", (developer.folder / call["outputs_image_ref_to"]).read_text().strip())
        developer.run("kubectl", "apply", "--filename=web.yaml")

    image_of_pod, digest = running(developer.installation, "tilts")
    assert re.fullmatch(rf"{NODES}/tilts:tilt(@sha256:[0-9a-f]+)?", image_of_pod)
    assert developer.pushed("tilts:tilt") == digest


def running(installation: Installation, name: str) -> tuple[str, str]:
    """What a deployment's pod is to run, and the digest of what it does run."""
    installation.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
    pods: list[dict[str, Any]] = json.loads(
        installation.kubectl("get", "pods", f"--selector=app={name}", "--output=json")
    )["items"]
    (pod,) = (pod for pod in pods if "deletionTimestamp" not in pod["metadata"])
    (status,) = pod["status"]["containerStatuses"]
    return pod["spec"]["containers"][0]["image"], status["imageID"].rpartition("@")[2]
