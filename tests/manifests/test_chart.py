"""The Helm chart creates what the kustomizations create, object for object, and takes the values that it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.manifests.helm import BUILD_SECONDS, CHART, helm, refusal, template
from support.manifests.rendered import (
    FOREIGN,
    MANIFESTS,
    VERSIONS,
    installing_block,
    kinds,
    monitored_by,
    one,
    pod_of,
    render,
    together,
)

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 120)

SECURE = ("tls.enabled=true", "registry.auth.enabled=true")
MONITORED = ("metrics.podMonitor.enabled=true", "metrics.prometheusRule.enabled=true", "metrics.dashboard.enabled=true")
HELMS_OWN = {"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/resource-policy"}
NAMED_LISTS = {"initContainers", "containers", "env", "volumes", "volumeMounts", "items"}
"""Whose order says nothing."""

Objects = dict[tuple[str, str], Any]


def comparable(value: Any) -> Any:
    """A document without what is Helm's own, and with its lists of named things in order."""
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: comparable(item) for key, item in value.items()}
    for key in ("labels", "annotations"):
        if key in found:
            found[key] = {name: text for name, text in found[key].items() if name not in HELMS_OWN}
            if not found[key]:
                del found[key]
    for key in NAMED_LISTS & found.keys():
        found[key].sort(key=lambda item: json.dumps(item, sort_keys=True))
    if found.get("namespace") == "team":
        del found["namespace"]
    return found


def objects(documents: list[dict[str, Any]]) -> Objects:
    return {(document["kind"], document["metadata"]["name"]): comparable(document) for document in documents}


def with_hosting(documents: list[dict[str, Any]]) -> Objects:
    return objects(documents) | objects(render(MANIFESTS / "local-registry-hosting"))


@pytest.mark.parametrize(
    ("overlay", "values"),
    [
        ("base", ()),
        ("ephemeral", ("persistence.enabled=false",)),
        ("secure", SECURE),
        ("monitoring", MONITORED),
    ],
)
def test_the_chart_is_the_same_as_an_overlay(overlay: str, values: tuple[str, ...]) -> None:
    assert with_hosting(render(MANIFESTS / overlay)) == objects(template(*values))


@pytest.mark.parametrize(
    ("components", "values"),
    [
        (("secure", "cert-manager"), (*SECURE, "tls.certManager.enabled=true")),
        (
            ("ephemeral", "secure", "cert-manager", "monitoring"),
            ("persistence.enabled=false", *SECURE, "tls.certManager.enabled=true", *MONITORED),
        ),
    ],
)
def test_the_chart_is_the_same_as_components_together(
    tmp_path: Path, components: tuple[str, ...], values: tuple[str, ...]
) -> None:
    assert with_hosting(together(tmp_path, *components)) == objects(template(*values))


def test_without_node_access_it_is_the_same_as_the_component(tmp_path: Path) -> None:
    assert objects(together(tmp_path, "without-node-access")) == objects(template("nodeAccess.enabled=false"))


def test_a_difference_would_be_seen() -> None:
    base = with_hosting(render(MANIFESTS / "base"))
    for value in ("resources.limits.memory=1Gi", "registry.auth.htpasswdSecret=mine", "nodeAccess.port=5002"):
        assert (base == objects(template(value))) == (value == "registry.auth.htpasswdSecret=mine")


def test_it_passes_helms_own_checks() -> None:
    done = helm("lint", "--strict", f"--kube-version={VERSIONS[-1]}", str(CHART))
    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize("values", [(), SECURE, MONITORED, ("persistence.enabled=false",)])
def test_what_it_creates_is_valid(values: tuple[str, ...]) -> None:
    documents = template(*values)
    assert "Deployment" in {document["kind"] for document in documents}
    for document in documents:
        if document["kind"] not in FOREIGN:
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)


def test_its_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    images = yaml.safe_load((MANIFESTS / "base" / "kustomization.yaml").read_text())["images"]
    assert {images[0]["newTag"]} == {chart["version"], chart["appVersion"]}


def test_values_reach_what_they_name() -> None:
    documents = template(
        "image.repository=mirror.example/spooler",
        "image.digest=sha256:" + "0" * 64,
        "nodeAccess.port=5002",
        "service.port=80",
        "persistence.storageClass=fast",
        "persistence.spool.size=3Gi",
        "persistence.registry.existingClaim=mine",
        "nodeSelector.disk=ssd",
        "extraEnv[0].name=REGISTRY_SPOOLER_COMPRESSION,extraEnv[0].value=zstd",
        "imagePullSecrets[0].name=mirror",
    )
    pod = pod_of(documents)
    spooler = next(found for found in pod["containers"] if found["name"] == "spooler")
    nodes = one(documents, "DaemonSet")["spec"]["template"]["spec"]
    for described in (spooler, *nodes["containers"]):
        assert f"mirror.example/spooler@sha256:{'0' * 64}" == described["image"]
    assert [{"name": "mirror"}] == pod["imagePullSecrets"] == nodes["imagePullSecrets"]
    assert ["127.0.0.1:5002", "registry:80"] == nodes["containers"][0]["args"]
    assert 5002 == nodes["containers"][0]["ports"][0]["hostPort"]
    assert 'host: "127.0.0.1:5002"' in one(documents, "ConfigMap")["data"]["localRegistryHosting.v1"]
    claim = one(documents, "PersistentVolumeClaim")
    assert ("registry-spooler-spool", "fast", "3Gi") == (
        claim["metadata"]["name"],
        claim["spec"]["storageClassName"],
        claim["spec"]["resources"]["requests"]["storage"],
    )
    environment = {variable["name"]: variable["value"] for variable in spooler["env"]}
    assert {
        "REGISTRY_SPOOLER_SPOOL_LIMIT": "3Gi",
        "REGISTRY_SPOOLER_COMPRESSION": "zstd",
    }.items() <= environment.items()
    assert {"claimName": "mine"} in [volume.get("persistentVolumeClaim") for volume in pod["volumes"]]
    assert {"disk": "ssd"} == pod["nodeSelector"]


def test_any_prometheus_is_served_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(installing_block("podMonitor:"))
    done = helm("template", "spooler", str(CHART), f"--kube-version={VERSIONS[-1]}", f"--values={tmp_path}/values.yaml")
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert ({"kube-prometheus-stack"}, ["monitoring", "observability"]) == monitored_by(documents)


def test_claims_stay_unless_told_otherwise() -> None:
    def kept(*values: str) -> set[str | None]:
        claims = [found for found in template(*values) if found["kind"] == "PersistentVolumeClaim"]
        return {claim["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for claim in claims}

    assert ({"keep"}, {None}) == (kept(), kept("persistence.keep=false"))


def test_parts_can_be_left_out() -> None:
    left = template(
        "rbac.create=false", "networkPolicy.enabled=false", "nodeAccess.enabled=false", "persistence.enabled=false"
    )
    assert ["Deployment", "Service", "ServiceAccount"] == kinds(left)
    issuer = ("tls.certManager.issuerRef.name=ours", "tls.certManager.issuerRef.kind=ClusterIssuer")
    documents = template(*SECURE, "tls.certManager.enabled=true", *issuer)
    assert {"name": "ours", "kind": "ClusterIssuer"} == one(documents, "Certificate")["spec"]["issuerRef"]
    assert "Issuer" not in kinds(documents)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (("tls.enabled=true",), "tls.enabled and registry.auth.enabled go together"),
        (("registry.auth.enabled=true",), "tls.enabled and registry.auth.enabled go together"),
        (("tls.certManager.enabled=true",), "tls.certManager.enabled needs tls.enabled"),
        (("persistance.enabled=false",), "persistance"),
        (("nodeAccess.port=80",), "nodeAccess/port"),
        (("image.digest=latest",), "image/digest"),
        (("extraEnv[0].name=REGISTRY_SPOOLER_QUEUE,extraEnv[0].value=8",), "extraEnv/0/value"),
        (("persistence.spool.size=much",), "persistence/spool/size"),
    ],
)
def test_values_that_cannot_be_are_refused(values: tuple[str, ...], reason: str) -> None:
    assert reason in refusal(*values)


def test_the_notes_end_with_the_first_push(tmp_path: Path) -> None:
    """`helm install` prints them, and wants a cluster for it; as an object they are rendered like the others."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "NOTES")
    wrapped = 'kind: Notes\nmetadata: {name: notes}\ntext: |\n  {{- tpl (.Files.Get "NOTES") . | nindent 2 }}\n'
    (chart / "templates" / "notes.yaml").write_text(wrapped)

    notes = one(template("nodeAccess.port=5002", chart=chart), "Notes")["text"].splitlines()
    assert [
        "  kubectl spool push app.tar app:v1 --namespace registry",
        "  kubectl run app --image=127.0.0.1:5002/app:v1",
    ] == notes[-2:]
