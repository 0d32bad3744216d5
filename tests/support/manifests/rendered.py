"""The manifests as kubectl renders them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("base", "ephemeral", "secure", "monitoring", "shared-spool", "existing-registry")
COMPONENTS = ("ephemeral", "secure", "cert-manager", "monitoring", "without-node-access")
VERSIONS = ("1.30.0", "1.32.0", "1.34.0")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
FOREIGN = {"Certificate", "Issuer", "PodMonitor", "PrometheusRule"}
"""Kinds that come with cert-manager and the Prometheus operator, not with Kubernetes."""


def render(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    return list(yaml.safe_load_all(done.stdout))


def together(folder: Path, *components: str) -> list[dict[str, Any]]:
    """The base with components, as a user puts them together."""
    for name in ("base", "components"):
        (folder / name).symlink_to(MANIFESTS / name)
    (folder / "mine").mkdir()
    lines = [
        "resources: [../base]",
        "namespace: team",
        "components:",
        *(f"- ../components/{name}" for name in components),
    ]
    (folder / "mine" / "kustomization.yaml").write_text("\n".join(lines))
    return render(folder / "mine")


def kinds(documents: list[dict[str, Any]]) -> list[str]:
    return sorted(document["kind"] for document in documents)


def one(documents: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    (found,) = [
        document for document in documents if document["kind"] == kind and name in {None, document["metadata"]["name"]}
    ]
    return found


def installing_block(text: str) -> str:
    """The one block of YAML in docs/install.md that has this text in it."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/install.md").read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [str(block) for block in blocks if text in block]
    return found


def monitored_by(documents: list[dict[str, Any]]) -> tuple[set[str], list[str]]:
    """Which Prometheus finds the pod and its rules, by the label `release`, and from which namespaces it may come."""
    releases = {one(documents, kind)["metadata"]["labels"]["release"] for kind in ("PodMonitor", "PrometheusRule")}
    (rule,) = one(documents, "NetworkPolicy", "registry-spooler-metrics")["spec"]["ingress"]
    names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]]
    return releases, names


def pod_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = one(documents, "Deployment")["spec"]["template"]["spec"]
    return pod


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """A pod's containers, the sidecars first."""
    return [*pod.get("initContainers", ()), *pod["containers"]]
