"""How nodes reach the registry: the DaemonSet fits the Service behind it, and the ConfigMap tells the same address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.manifests.rendered import MANIFESTS, OVERLAYS, PROBES, VERSIONS, kinds, one, pod_of, render, together

WITH_A_REGISTRY = [overlay for overlay in OVERLAYS if overlay != "existing-registry"]


def node_access(overlay: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Its pod and the one container in it."""
    pod = one(render(MANIFESTS / overlay), "DaemonSet", "registry-node-access")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


@pytest.mark.parametrize("overlay", WITH_A_REGISTRY)
def test_every_node_listens_on_its_loopback_and_nowhere_else(overlay: str) -> None:
    pod, container = node_access(overlay)

    listens, registry = container["args"]
    (port,) = container["ports"]
    assert (True, "ClusterFirstWithHostNet") == (pod["hostNetwork"], pod["dnsPolicy"])
    assert listens == f"{port['hostIP']}:{port['hostPort']}" == "127.0.0.1:5001"
    assert port["hostPort"] == port["containerPort"]
    service = one(render(MANIFESTS / overlay), "Service")
    assert registry == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    for probe in PROBES:
        (how,) = {"tcpSocket", "httpGet"} & container[probe].keys()
        assert ("127.0.0.1", port["name"]) == (container[probe][how]["host"], container[probe][how]["port"])


@pytest.mark.parametrize("overlay", WITH_A_REGISTRY)
def test_it_runs_on_every_node_with_no_more_rights_than_the_network(overlay: str) -> None:
    pod, container = node_access(overlay)

    assert [{"operator": "Exists"}] == pod["tolerations"]
    assert {"kubernetes.io/os": "linux"} == pod["nodeSelector"]
    assert {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}.items() <= pod[
        "securityContext"
    ].items()
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == container["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert "volumes" not in pod


@pytest.mark.parametrize("overlay", WITH_A_REGISTRY)
def test_nodes_run_the_image_of_the_spooler_and_pull_by_the_service_alone(overlay: str) -> None:
    documents = render(MANIFESTS / overlay)
    _, container = node_access(overlay)

    images = {described["name"]: described["image"] for described in pod_of(documents)["containers"]}
    assert images["spooler"] == container["image"]
    labels = one(documents, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert not one(documents, "Service")["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(("overlay", "scheme"), [("base", "HTTP"), ("secure", "HTTPS")])
def test_it_is_ready_when_the_registry_answers(overlay: str, scheme: str) -> None:
    _, container = node_access(overlay)
    assert scheme == container["readinessProbe"]["httpGet"].get("scheme", "HTTP")


def test_it_can_be_left_out(tmp_path: Path) -> None:
    for number, components in enumerate((("without-node-access", "secure"), ("secure", "without-node-access"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert "DaemonSet" not in kinds(together(folder, *components))
    assert "DaemonSet" not in kinds(render(MANIFESTS / "existing-registry"))


def test_other_tools_are_told_where_to_pull_from_and_how_to_push() -> None:
    documents = render(MANIFESTS / "local-registry-hosting")

    assert ["ConfigMap", "Role", "RoleBinding"] == kinds(documents)
    assert {"kube-public"} == {document["metadata"]["namespace"] for document in documents}
    for document in documents:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    found = one(documents, "ConfigMap", "local-registry-hosting")
    hosting = yaml.safe_load(found["data"]["localRegistryHosting.v1"])
    _, container = node_access("base")
    assert hosting["host"] == hosting["hostFromContainerRuntime"] == container["args"][0]
    # That address takes pushes while the port of the registry that can be written to is forwarded to it.
    assert hosting["help"].endswith("deployment/registry-spooler 5001:5000")
    (rule,) = one(documents, "Role")["rules"]
    assert ([found["metadata"]["name"]], ["get"]) == (rule["resourceNames"], rule["verbs"])
    (subject,) = one(documents, "RoleBinding")["subjects"]
    assert "system:authenticated" == subject["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_goes_into_one_namespace(overlay: str) -> None:
    """`kubectl apply --namespace` refuses what names another one."""
    assert not [document for document in render(MANIFESTS / overlay) if "namespace" in document["metadata"]]
