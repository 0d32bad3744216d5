"""The manifests as kubectl renders them: valid by Kubernetes' own schemas, whole, and as strict as they say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from registry_spooler.spool.settings import SpoolSettings
from support.manifests.rendered import (
    COMPONENTS,
    FOREIGN,
    MANIFESTS,
    OVERLAYS,
    PROBES,
    VERSIONS,
    containers_of,
    installing_block,
    kinds,
    monitored_by,
    one,
    pod_of,
    render,
    together,
)


def container(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [container for container in containers_of(pod_of(documents)) if container["name"] == name]
    assert isinstance(found, dict)
    return found


def environment(described: dict[str, Any]) -> dict[str, str]:
    """Variables with their values; for a secret its name and key."""
    return {
        variable["name"]: variable.get("value") or "{name}/{key}".format(**variable["valueFrom"]["secretKeyRef"])
        for variable in described["env"]
    }


def listens_on_loopback(described: dict[str, Any]) -> bool:
    return environment(described).get("REGISTRY_HTTP_ADDR", "").startswith("127.0.0.1:")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_valid(overlay: str) -> None:
    documents = render(MANIFESTS / overlay)
    assert any(document["kind"] not in FOREIGN for document in documents)
    for document in documents:
        if document["kind"] not in FOREIGN:
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_confined(overlay: str) -> None:
    pod = pod_of(render(MANIFESTS / overlay))

    assert {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }.items() <= pod["securityContext"].items()
    assert pod["automountServiceAccountToken"] is False
    for described in containers_of(pod):
        assert {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        } == described["securityContext"]
        assert {"requests", "limits"} == set(described["resources"])
        if listens_on_loopback(described):
            assert not [probe for probe in PROBES if probe in described], "the kubelet cannot reach it"
        else:
            assert [probe for probe in PROBES if probe in described] == [*PROBES]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_hangs_in_the_air(overlay: str) -> None:
    """Every mount has a volume, every volume a mount, every probe and policy a port."""
    documents = render(MANIFESTS / overlay)
    pod = pod_of(documents)
    mounted = {mount["name"] for described in containers_of(pod) for mount in described.get("volumeMounts", ())}
    assert {volume["name"] for volume in pod["volumes"]} == mounted
    for volume in pod["volumes"]:
        assert 1 == len(volume.keys() - {"name"})
    ports = {port["name"] for described in containers_of(pod) for port in described.get("ports", ())}
    for described in containers_of(pod):
        own = {port["name"] for port in described.get("ports", ())}
        assert {described[probe]["httpGet"]["port"] for probe in PROBES if probe in described} <= own
    for document in documents:
        if document["kind"] == "NetworkPolicy":
            named = {port["port"] for rule in document["spec"].get("ingress", ()) for port in rule["ports"]}
            assert named <= ports
        if document["kind"] == "Service":
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= ports


def test_the_base_is_a_registry_and_a_spooler_in_one_pod() -> None:
    documents = render(MANIFESTS / "base")

    claims = ["PersistentVolumeClaim"] * 2
    assert ["DaemonSet", "Deployment", "NetworkPolicy", *claims, "Role", "Service", "ServiceAccount"] == kinds(
        documents
    )
    assert ["registry", "spooler", "registry-reader"] == [
        described["name"] for described in containers_of(pod_of(documents))
    ]
    assert "true" == environment(container(documents, "registry"))["REGISTRY_STORAGE_DELETE_ENABLED"]
    assert "http://localhost:5000" == environment(container(documents, "spooler"))["REGISTRY_SPOOLER_REGISTRY"]
    probes = container(documents, "spooler")
    assert ("/live", "/ready") == tuple(probes[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_registry_is_pinned_by_digest(overlay: str) -> None:
    images = [described["image"] for described in containers_of(pod_of(render(MANIFESTS / overlay)))]
    pinned = [
        image for image in images if re.fullmatch(r"docker\.io/library/registry:[\d.]+@sha256:[0-9a-f]{64}", image)
    ]
    assert len(images) - 1 == len(pinned)


@pytest.mark.parametrize("overlay", ["base", "monitoring", "ephemeral", "shared-spool"])
def test_without_a_login_nobody_pushes_from_outside_the_pod(overlay: str) -> None:
    documents = render(MANIFESTS / overlay)

    writable, reader = container(documents, "registry"), container(documents, "registry-reader")
    assert listens_on_loopback(writable)
    assert "ports" not in writable
    maintenance = yaml.safe_load(environment(reader)["REGISTRY_STORAGE_MAINTENANCE"])
    assert {"readonly": {"enabled": True}, "uploadpurging": {"enabled": False}} == maintenance
    assert all(mount["readOnly"] for mount in reader.get("volumeMounts", ()))
    (served,) = one(documents, "Service")["spec"]["ports"]
    assert (5000, "registry") == (served["port"], served["targetPort"])
    assert [("registry", 5001)] == [(port["name"], port["containerPort"]) for port in reader["ports"]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_policy_lets_a_pod_reach_link_local_addresses(overlay: str) -> None:
    policies = [document for document in render(MANIFESTS / overlay) if document["kind"] == "NetworkPolicy"]
    rules = [rule for policy in policies for rule in policy["spec"].get("egress", ())]
    for rule in rules:
        blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
        dns_cache = {"cidr": "169.254.20.10/32"}
        allowed = [block for block in blocks if block != dns_cache]
        assert [
            {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]},
            {"cidr": "::/0", "except": ["fe80::/10"]},
        ] == allowed
        assert dns_cache not in blocks or {53} == {port["port"] for port in rule["ports"]}
    assert (overlay in ("existing-registry", "shared-spool")) == bool(rules)


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "existing-registry"])
def test_the_registry_outlives_the_spoolers_grace(overlay: str) -> None:
    documents = render(MANIFESTS / overlay)

    assert ("registry", "Always") == tuple(
        pod_of(documents)["initContainers"][0][key] for key in ("name", "restartPolicy")
    )
    grace = SpoolSettings(directory=Path()).shutdown_grace_seconds
    assert grace + 5 <= pod_of(documents)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_probe_asks_before_a_program_can_have_started(overlay: str) -> None:
    for described in containers_of(pod_of(render(MANIFESTS / overlay))):
        if "startupProbe" in described:
            assert 2 <= described["startupProbe"]["initialDelaySeconds"]


def test_who_pushes_may_do_what_kubectl_needs_and_no_more() -> None:
    assert [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ] == one(render(MANIFESTS / "base"), "Role")["rules"]


@pytest.mark.parametrize("overlay", ["base", "secure", "monitoring"])
def test_images_and_waiting_files_outlive_the_pod(overlay: str) -> None:
    documents = render(MANIFESTS / overlay)

    claims = {document["metadata"]["name"] for document in documents if document["kind"] == "PersistentVolumeClaim"}
    used = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod_of(documents)["volumes"]}
    assert {"registry-spooler-spool", "registry-spooler-registry"} == claims
    assert {"claimName": "registry-spooler-spool"} == used["spool"]
    assert {"claimName": "registry-spooler-registry"} == used["registry"]


@pytest.mark.parametrize(
    ("overlay", "claim"),
    [("base", "registry-spooler-spool"), ("shared-spool", "registry-spooler-shared")],
)
def test_the_spooler_knows_how_large_its_claim_is(overlay: str, claim: str) -> None:
    documents = render(MANIFESTS / overlay)

    size = one(documents, "PersistentVolumeClaim", claim)["spec"]["resources"]["requests"]["storage"]
    assert size == environment(container(documents, "spooler"))["REGISTRY_SPOOLER_SPOOL_LIMIT"]


def test_ephemeral_has_no_limit_that_evicts_the_registry() -> None:
    documents = render(MANIFESTS / "ephemeral")

    assert "PersistentVolumeClaim" not in kinds(documents)
    assert [{}, {}] == [volume["emptyDir"] for volume in pod_of(documents)["volumes"]]
    spooler = container(documents, "spooler")
    assert "ephemeral-storage" not in spooler["resources"]["limits"]
    assert spooler["resources"]["requests"]["ephemeral-storage"] == environment(spooler)["REGISTRY_SPOOLER_SPOOL_LIMIT"]


def test_secure_has_tls_and_a_password_from_secrets() -> None:
    documents = render(MANIFESTS / "secure")

    registry, spooler = environment(container(documents, "registry")), environment(container(documents, "spooler"))
    assert ("/etc/registry/tls/tls.crt", "htpasswd") == (
        registry["REGISTRY_HTTP_TLS_CERTIFICATE"],
        registry["REGISTRY_AUTH"],
    )
    assert {
        "REGISTRY_SPOOLER_REGISTRY": "https://localhost:5000",
        "REGISTRY_SPOOLER_CERTIFICATE": "/etc/registry/ca/ca.crt",
        "REGISTRY_SPOOLER_USERNAME": "registry-spooler-credentials/username",
        "REGISTRY_SPOOLER_PASSWORD_FILE": "/etc/registry/credentials/password",
    }.items() <= spooler.items()
    assert ["registry", "spooler"] == [described["name"] for described in containers_of(pod_of(documents))]
    assert ":5000" == registry["REGISTRY_HTTP_ADDR"]
    for probe in PROBES:
        assert "HTTPS" == container(documents, "registry")[probe]["httpGet"]["scheme"]
    secrets = {volume["secret"]["secretName"] for volume in pod_of(documents)["volumes"] if "secret" in volume}
    assert {"registry-tls", "registry-htpasswd", "registry-spooler-credentials"} == secrets
    assert not [mount for mount in container(documents, "spooler")["volumeMounts"] if mount["name"] == "tls"]


def test_cert_manager_makes_the_secret_that_the_registry_uses(tmp_path: Path) -> None:
    documents = together(tmp_path, "secure", "cert-manager")

    certificate = one(documents, "Certificate")["spec"]
    secrets = {volume["secret"]["secretName"] for volume in pod_of(documents)["volumes"] if "secret" in volume}
    assert certificate["secretName"] in secrets
    assert one(documents, "Issuer")["metadata"]["name"] == certificate["issuerRef"]["name"]
    assert {"localhost", one(documents, "Service")["metadata"]["name"]} <= set(certificate["dnsNames"])


def test_monitoring_finds_the_pod_and_is_let_in() -> None:
    documents = render(MANIFESTS / "monitoring")

    labels = one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    monitor = one(documents, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert "health" == monitor["podMetricsEndpoints"][0]["port"]
    policy = one(documents, "NetworkPolicy", "registry-spooler-metrics")["spec"]
    assert ["health"] == [port["port"] for port in policy["ingress"][0]["ports"]]
    dashboard = one(documents, "ConfigMap")
    assert "1" == dashboard["metadata"]["labels"]["grafana_dashboard"]
    assert ["registry-spooler.json"] == list(dashboard["data"])


def test_any_prometheus_is_served_as_the_page_says(tmp_path: Path) -> None:
    for name in ("base", "components", "monitoring"):
        (tmp_path / name).symlink_to(MANIFESTS / name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(installing_block("../monitoring"))
    assert ({"kube-prometheus-stack"}, ["monitoring", "observability"]) == monitored_by(render(tmp_path / "mine"))


def test_a_shared_spool_is_one_volume_for_several_pods() -> None:
    documents = render(MANIFESTS / "shared-spool")

    deployment = one(documents, "Deployment")["spec"]
    assert (3, "RollingUpdate") == (deployment["replicas"], deployment["strategy"]["type"])
    claim = one(documents, "PersistentVolumeClaim")
    assert ["ReadWriteMany"] == claim["spec"]["accessModes"]
    assert [{"name": "spool", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}] == pod_of(documents)[
        "volumes"
    ]
    registry = environment(container(documents, "registry"))
    assert ("s3", "registry-object-store/http-secret") == (
        registry["REGISTRY_STORAGE"],
        registry["REGISTRY_HTTP_SECRET"],
    )
    assert "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY" not in registry
    assert 1 == one(documents, "PodDisruptionBudget")["spec"]["minAvailable"]


def test_for_an_existing_registry_the_spooler_is_alone() -> None:
    documents = render(MANIFESTS / "existing-registry")

    assert "Service" not in kinds(documents)
    assert ["spooler"] == [described["name"] for described in containers_of(pod_of(documents))]
    spooler = environment(container(documents, "spooler"))
    assert spooler["REGISTRY_SPOOLER_REGISTRY"].startswith("https://")
    assert "/etc/registry/credentials/.dockerconfigjson" == spooler["REGISTRY_SPOOLER_DOCKER_CONFIG"]
    assert "secret" in {key for volume in pod_of(documents)["volumes"] for key in volume}
    assert "registry-spooler-spool" == one(documents, "PersistentVolumeClaim")["metadata"]["name"]


def test_all_components_go_together(tmp_path: Path) -> None:
    documents = together(tmp_path, *COMPONENTS)

    for document in documents:
        assert "team" == document["metadata"]["namespace"]
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_the_wheel_has_them_all_but_the_chart() -> None:
    project = tomllib.loads((MANIFESTS.parent / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {f"manifests/{folder.name}" for folder in MANIFESTS.iterdir()} - {"manifests/chart"} == included.keys()
    for source, target in included.items():
        assert target == f"registry_spooler/cli/kubectl/{source}"
