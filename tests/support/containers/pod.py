"""A rendered manifest, played by podman in the place of a cluster."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from typing import Any, Self

import yaml

from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import Digest
from support.containers.machine import REGISTRY, Machine

PINNED_REGISTRY = re.compile(r"docker\.io/library/registry:\S+@sha256:[0-9a-f]{64}")
"""What the manifests run; the image that is built here has another digest."""
NAME = "registry-spooler-pod"
"""How the pod's name starts; podman 4 adds a number."""


class Pod:
    """A played pod. It has a network of its own with nothing but its loopback, so probes are asked from within.

    Leaving it takes it away, since the next one has the same name.
    """

    def __init__(self, machine: Machine, manifest: str) -> None:
        self._machine = machine
        # A DaemonSet is for the nodes of a cluster.
        loaded = yaml.safe_load_all(PINNED_REGISTRY.sub(REGISTRY, manifest))
        documents = [_without_sidecars(found) for found in loaded if found["kind"] != "DaemonSet"]
        self._manifest = yaml.safe_dump_all(documents)
        self.deployment: dict[str, Any] = next(found for found in documents if found["kind"] == "Deployment")
        self._play()

    def _play(self) -> None:
        # podman publishes every containerPort unless the network is the host's; so the host's is a new one here.
        self._machine.run(
            "unshare",
            "--net",
            "sh",
            "-c",
            "ip link set lo up && podman kube play --network=slirp4netns -",
            text=self._manifest,
        )
        self.name = self._machine.podman("pod", "ps", f"--filter=name={NAME}", "--format={{.Name}}").strip()
        self.spooler = f"{self.name}-spooler"
        self._process = self._machine.podman("inspect", "--format={{.State.Pid}}", self.spooler).strip()

    def container(self, name: str) -> dict[str, Any]:
        """A container as the manifest has it."""
        containers = self.deployment["spec"]["template"]["spec"]["containers"]
        return next(container for container in containers if container["name"] == name)

    @property
    def probes(self) -> list[tuple[str, str]]:
        """The containers and kinds of all probes of the manifest."""
        return [
            (container["name"], kind)
            for container in self.deployment["spec"]["template"]["spec"]["containers"]
            for kind in ("startupProbe", "livenessProbe", "readinessProbe")
            if kind in container
        ]

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Ask as the kubelet would, from the pod's own network."""
        return self.ask(port, path, "GET")

    def ask(self, port: int, path: str, method: str) -> tuple[int, str]:
        """The same by another method."""
        found = self._machine.run(
            "nsenter", f"--target={self._process}", "--net",
            "curl", "--request", method, "--silent", "--max-time", "5", "--write-out", "\n%{http_code}",
            "--header", f"Accept: {mediatype.MANIFEST_ACCEPT}, */*;q=0.1", f"http://127.0.0.1:{port}{path}",
            check=False,
        )  # fmt: skip
        body, _, status = found.rpartition("\n")
        return int(status), body

    def listening(self) -> dict[int, set[str]]:
        """The addresses that are listened on, by port."""
        found: dict[int, set[str]] = {}
        for line in self._machine.run(
            "nsenter", f"--target={self._process}", "--net", "ss", "--listening", "--tcp", "--numeric", "--no-header"
        ).splitlines():
            address, _, port = line.split()[3].rpartition(":")
            found.setdefault(int(port), set()).add(address.strip("[]").replace("*", "::"))
        return found

    def replace(self) -> None:
        """Take the pod away and play it again: what is on its volumes stays."""
        self._machine.podman("pod", "rm", "--force", "--time=10", self.name)
        # podman makes a volume of each claim, and wants to make it each time.
        documents = [found for found in yaml.safe_load_all(self._manifest) if found["kind"] != "PersistentVolumeClaim"]
        self._manifest = yaml.safe_dump_all(documents)
        self._play()

    def probe(self, container: str, kind: str) -> None:
        """Return when a probe of the manifest has answered, asked as often as the manifest says and no oftener."""
        described = self.container(container)
        ports = {port["name"]: port["containerPort"] for port in described["ports"]}
        wanted = described[kind]["httpGet"]
        scheme = wanted.get("scheme", "HTTP").lower()
        self._machine.run(
            "nsenter", f"--target={self._process}", "--net",
            # Like the kubelet, it takes any certificate.
            "curl", "--silent", "--show-error", "--fail", "--insecure", "--output", "/dev/null",
            "--retry", "60", "--retry-delay", "1", "--retry-max-time", "60", "--retry-all-errors",
            f"{scheme}://127.0.0.1:{ports[wanted['port']]}{wanted['path']}",
        )  # fmt: skip

    def shell(self, command: str, content: bytes = b"") -> str:
        """What `kubectl exec --stdin -- sh -c` does."""
        done = subprocess.run(
            ["podman", "exec", "--interactive", self.spooler, "sh", "-c", command],
            env=self._machine.environment, input=content, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stderr.decode()
        return done.stdout.decode()

    def push(self, name: str) -> dict[str, Any]:
        """Copy an archive in as `kubectl cp` does (`tar -xmf -`), publish it, and wait for its receipt."""
        self.shell("tar -xmf - -C /spool", tar_of({f"{name}~": docker_archive()}))
        self.shell(f"mv '/spool/{name}~' '/spool/{name}'")
        receipt: dict[str, Any] = json.loads(self.shell(f"registry-client wait '{name}'"))
        return receipt

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.podman("pod", "rm", "--force", "--time=0", self.name)
        self._machine.podman("volume", "rm", "registry-spooler-spool", "registry-spooler-registry")


def docker_archive() -> bytes:
    """What `docker save` writes: an image of one layer that holds one file."""
    layer = tar_of({"hello": b"hello"})
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(layer))]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs}
    index = [{"Config": "config.json", "RepoTags": ["team/app:1.0"], "Layers": ["layer.tar"]}]
    return tar_of(
        {"config.json": json.dumps(config).encode(), "layer.tar": layer, "manifest.json": json.dumps(index).encode()}
    )


def tar_of(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def _without_sidecars(document: dict[str, Any]) -> dict[str, Any]:
    """Make sidecars plain containers: podman waits for the end of an init container, whatever its `restartPolicy`."""
    if document["kind"] == "Deployment":
        pod = document["spec"]["template"]["spec"]
        sidecars = pod.pop("initContainers", [])
        for container in sidecars:
            del container["restartPolicy"]
        pod["containers"] = [*sidecars, *pod["containers"]]
    return document
