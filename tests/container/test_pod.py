"""The rendered base, played by podman: confined as Kubernetes would, probes answering, an archive through it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from machine import REGISTRY, ROOT, Machine

from registry_spooler import mediatype
from registry_spooler.digest import Digest

POD = "registry-spooler-pod-0"
SPOOLER = f"{POD}-spooler"


class Pod:
    """A played pod. It has a network of its own with nothing but its loopback, so probes are asked from within."""

    def __init__(self, machine: Machine, manifest: str) -> None:
        self._machine = machine
        self.deployment = next(
            document for document in yaml.safe_load_all(manifest) if document["kind"] == "Deployment"
        )
        # podman publishes every containerPort unless the network is the host's; so the host's is a new one here.
        machine.run(
            "unshare",
            "--net",
            "sh",
            "-c",
            "ip link set lo up && podman kube play --network=slirp4netns -",
            text=manifest,
        )
        self._process = machine.podman("inspect", "--format={{.State.Pid}}", SPOOLER).strip()

    def container(self, name: str) -> dict[str, Any]:
        """A container as the manifest has it."""
        containers = self.deployment["spec"]["template"]["spec"]["containers"]
        return next(container for container in containers if container["name"] == name)

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Ask as the kubelet would, from the pod's own network."""
        found = self._machine.run(
            "nsenter", f"--target={self._process}", "--net",
            "curl", "--silent", "--max-time", "5", "--write-out", "\n%{http_code}",
            "--header", f"Accept: {mediatype.MANIFEST_ACCEPT}, */*;q=0.1", f"http://127.0.0.1:{port}{path}",
            check=False,
        )  # fmt: skip
        body, _, status = found.rpartition("\n")
        return int(status), body

    def probe(self, container: str, kind: str) -> None:
        """Return when a probe of the manifest has answered, asked as often as the manifest says and no oftener."""
        described = self.container(container)
        ports = {port["name"]: port["containerPort"] for port in described["ports"]}
        wanted = described[kind]["httpGet"]
        self._machine.run(
            "nsenter", f"--target={self._process}", "--net",
            "curl", "--silent", "--show-error", "--fail", "--output", "/dev/null",
            "--retry", "60", "--retry-delay", "1", "--retry-max-time", "60", "--retry-all-errors",
            f"http://127.0.0.1:{ports[wanted['port']]}{wanted['path']}",
        )  # fmt: skip

    def shell(self, command: str, content: bytes = b"") -> str:
        """What `kubectl exec --stdin -- sh -c` does."""
        done = subprocess.run(
            ["podman", "exec", "--interactive", SPOOLER, "sh", "-c", command],
            env=self._machine.environment, input=content, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stderr.decode()
        return done.stdout.decode()


@pytest.fixture(scope="module")
def pod(machine: Machine) -> Iterator[Pod]:
    rendered = machine.run("kubectl", "kustomize", str(ROOT / "manifests" / "base"))
    assert f"image: {REGISTRY}\n" in rendered
    yield Pod(machine, rendered)


def docker_archive() -> bytes:
    """What `docker save` writes: an image of one layer that holds one file."""
    layer = _tar({"hello": b"hello"})
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(layer))]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs}
    index = [{"Config": "config.json", "RepoTags": ["team/app:1.0"], "Layers": ["layer.tar"]}]
    return _tar(
        {"config.json": json.dumps(config).encode(), "layer.tar": layer, "manifest.json": json.dumps(index).encode()}
    )


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def test_all_probes_of_the_manifest_answer(pod: Pod) -> None:
    for container in ("registry", "spooler"):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            pod.probe(container, kind)


def test_an_archive_copied_into_the_container_is_pushed(pod: Pod) -> None:
    pod.probe("spooler", "readinessProbe")

    # `kubectl cp` runs `tar -xmf -` in the container; the rename is what publishes.
    pod.shell("tar -xmf - -C /spool", _tar({"team\\app:1.0.tar~": docker_archive()}))
    pod.shell("mv '/spool/team\\app:1.0.tar~' '/spool/team\\app:1.0.tar'")
    receipt = json.loads(pod.shell("registry-client wait 'team\\app:1.0.tar'"))

    assert "team/app:1.0" == receipt["reference"]
    status, _ = pod.get(5000, f"/v2/team/app/manifests/{receipt['digest']}")
    assert 200 == status
    assert '"tags":["1.0"]' in pod.get(5000, "/v2/team/app/tags/list")[1]
    assert "" == pod.shell("ls /spool")
    assert 'registry_spooler_jobs_total{action="push",outcome="done"} 1.0' in pod.get(8086, "/metrics")[1]


def test_an_image_is_deleted_by_a_name(pod: Pod) -> None:
    pod.shell("touch '/spool/team\\app:1.0!'")
    pod.shell("registry-client wait 'team\\app:1.0!'")

    assert 404 == pod.get(5000, "/v2/team/app/manifests/1.0")[0]


def test_both_run_as_the_manifest_confines_them(pod: Pod, machine: Machine) -> None:
    for container in ("registry", "spooler"):
        status = machine.podman("exec", f"{POD}-{container}", "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert ["65532"] * 4 == fields["Uid"].split()
        assert 0 == int(fields["CapBnd"], 16)
        assert "1" == fields["NoNewPrivs"]
        found = json.loads(machine.podman("inspect", f"{POD}-{container}"))[0]
        assert found["HostConfig"]["ReadonlyRootfs"]
