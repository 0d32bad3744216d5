"""`kubectl spool install`: what reaches the cluster, what is written, and what is looked for before.

kubectl is the real one but for what needs a cluster: a stand-in answers `get` with the objects that a test has put
there, and keeps what `apply` was given.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.cluster.terminal import Done, Terminal
from support.images.archive_parts import Image
from support.images.archives import podman_docker

IMAGE = "registry.example.org:5000/spooler:7"
STAND_IN = """#!/bin/sh
command=$1 kind=$2 name=$3
[ "$command" = kustomize ] && exec {real} "$@"
echo "$@" >> {folder}/asked
case $command in
apply) [ ! -s {folder}/applied ] || echo --- >> {folder}/applied; cat >> {folder}/applied;;
create) [ "$kind" = namespace ] || {{ cat >> {folder}/created; echo pod/check; }};;
get) [ "$kind" != pod/check ] || {{ cat {folder}/check.json; exit; }}
    case $name in -*|"") file={folder}/$kind.json;; *) file={folder}/$kind-$name.json;; esac
    if [ -f $file.error ]; then cat $file.error >&2; exit 1; fi
    [ ! -f $file ] || cat $file;;
esac
"""


@dataclass(frozen=True)
class Admin:
    """An administrator at a terminal, and what the cluster holds."""

    terminal: Terminal
    folder: Path

    def has(self, kind: str, name: str = "any") -> None:
        (self.folder / f"{kind}-{name}.json").write_text(json.dumps({"metadata": {"name": name}}))

    def has_list(self, kind: str, *items: dict[str, Any]) -> None:
        (self.folder / f"{kind}.json").write_text(json.dumps({"kind": "List", "items": items}))

    def cannot_pull(self, message: str) -> None:
        waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": message}}}
        (self.folder / "check.json").write_text(json.dumps({"status": {"containerStatuses": [waiting]}}))

    def fails(self, kind: str, said: str) -> None:
        (self.folder / f"{kind}.json.error").write_text(f"{said}\n")

    async def install(self, *arguments: str, code: int = 0) -> Done:
        return await self.terminal.spool("install", *arguments, code=code)

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()

    @property
    def applied(self) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all((self.folder / "applied").read_text()))

    @property
    def has_applied(self) -> bool:
        return (self.folder / "applied").exists()


def storage_class(name: str, *, default: bool = False) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else None
    return {"metadata": {"name": name, "annotations": annotations}}


def images(documents: list[dict[str, Any]]) -> dict[str, str]:
    pods = [found["spec"]["template"]["spec"] for found in documents if found["kind"] in ("Deployment", "DaemonSet")]
    containers = [container for pod in pods for container in (*pod.get("initContainers", ()), *pod["containers"])]
    return {container["name"]: container["image"] for container in containers}


def one(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [found for found in documents if (found["kind"], found["metadata"]["name"]) == (kind, name)]
    return found


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    """With a default storage class, as most clusters have one."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    kubectl = folder / "kubectl"
    kubectl.write_text(STAND_IN.format(real=shutil.which("kubectl"), folder=folder))
    kubectl.chmod(0o755)
    found = Admin(Terminal(tmp_path, tmp_path / "kubeconfig", path=f"{folder}:{Terminal.path}"), folder)
    found.has_list("storageclass", storage_class("standard", default=True))
    created = {"state": {"waiting": {"reason": "RunContainerError"}}}
    (folder / "check.json").write_text(json.dumps({"status": {"containerStatuses": [created]}}))
    return found


async def test_print_shows_what_would_be_applied(admin: Admin) -> None:
    printed = list(yaml.safe_load_all((await admin.install("--print", "--image", IMAGE)).stdout))
    assert {IMAGE} == {images(printed)[name] for name in ("spooler", "node-access")}
    assert not admin.has_applied


async def test_it_is_kubectl_apply(admin: Admin) -> None:
    await admin.install("-n", "images", "--context", "test", "--image", IMAGE)
    assert "apply --filename=- --namespace=images --context=test" in admin.asked
    assert [line for line in admin.asked if line.startswith("rollout status deployment/registry-spooler")]
    assert IMAGE == images(admin.applied)["spooler"]


async def test_an_image_has_to_be_named(admin: Admin) -> None:
    for arguments in ((), ("--print",), ("--overlay", "monitoring")):
        refused = await admin.install(*arguments, code=2)
        assert "--image NAME:TAG. None is published; build one with `container/build" in refused.stderr
    assert not admin.has_applied


@pytest.mark.parametrize(
    "image", ["spooler", IMAGE, f"host/spooler@sha256:{'0' * 64}", f"host:5000/spooler:7@sha256:{'0' * 64}"]
)
async def test_the_image_goes_into_written_manifests(admin: Admin, tmp_path: Path, image: str) -> None:
    await admin.install("--output", "files", "--image", image, "--registry-image", "mirror.example/registry:3")
    rendered = await admin.terminal.run("kubectl", "kustomize", "files/base")
    found = images(list(yaml.safe_load_all(rendered.stdout)))
    mirror = "mirror.example/registry:3"
    expected = image if image != "spooler" else "spooler:latest"
    assert not (tmp_path / "files" / "chart").exists()
    assert {"spooler": expected, "node-access": expected, "registry": mirror, "registry-reader": mirror} == found


async def test_the_image_goes_into_an_overlay_of_ones_own(admin: Admin, tmp_path: Path) -> None:
    await admin.install("--output", "files")
    (tmp_path / "files" / "mine").mkdir()
    lines = "resources: [../base]\nimages: [{name: registry-spooler, newName: mine, newTag: '1'}]\n"
    (tmp_path / "files" / "mine" / "kustomization.yaml").write_text(lines)
    await admin.install("--overlay", "files/mine", "--no-wait")
    assert "mine:1" == images(admin.applied)["spooler"]
    await admin.install("--overlay", "files/mine", "--image", IMAGE, "--no-wait")
    assert IMAGE == images(admin.applied)["spooler"]


async def test_manifests_are_written_again_unless_somebody_changed_them(admin: Admin, tmp_path: Path) -> None:
    await admin.install("--output", "files")
    (tmp_path / "files" / "mine").mkdir()
    await admin.install("--output", "files", "--image", IMAGE)
    assert 'newTag: "7"' in (tmp_path / "files" / "base" / "kustomization.yaml").read_text()
    assert (tmp_path / "files" / "mine").exists()

    role = tmp_path / "files" / "base" / "role.yaml"
    role.write_text(role.read_text() + "# mine\n")
    refused = await admin.install("--output", "files", code=1)
    assert "base/role.yaml in files has been changed since it was written" in refused.stderr
    assert role.read_text().endswith("# mine\n")


async def test_a_directory_of_somebody_else_is_left_alone(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("precious")
    refused = await admin.install("--output", "theirs", code=1)
    assert "theirs is not empty, and was not written by this command" in refused.stderr
    assert ["file"] == [path.name for path in (tmp_path / "theirs").iterdir()]


async def test_secrets_are_looked_for_first(admin: Admin) -> None:
    admin.has("secret", "registry-htpasswd")
    refused = await admin.install("--overlay", "secure", "-n", "images", "--image", IMAGE, code=1)
    for line in (
        "kubectl create namespace images",
        "kubectl create secret generic registry-tls --from-file=tls.crt --from-file=tls.key --from-file=ca.crt"
        " --namespace images",
        "kubectl create secret generic registry-spooler-credentials --from-file=password"
        " --from-literal=username=VALUE --namespace images",
    ):
        assert f"kubectl spool: {line}\n" in refused.stderr
    assert "the secrets registry-tls and registry-spooler-credentials are missing" in refused.stderr
    assert not admin.has_applied

    admin.has("secret", "registry-tls")
    admin.has("secret", "registry-spooler-credentials")
    await admin.install("--overlay", "secure", "-n", "images", "--image", IMAGE)
    assert admin.has_applied


async def test_who_may_not_read_secrets_installs_all_the_same(admin: Admin) -> None:
    admin.fails("secret-registry-tls", "Error from server (Forbidden): secrets is forbidden")
    done = await admin.install("--overlay", "secure", "--image", IMAGE)
    assert "not checked: Error from server (Forbidden)" in done.stderr
    assert admin.has_applied


async def test_a_pull_secret_is_made_by_its_own_command(admin: Admin, tmp_path: Path) -> None:
    refused = await admin.install("--overlay", "existing-registry", "--image", IMAGE, code=2)
    assert "put your registry into existing-registry/deployment.yaml" in refused.stderr

    await admin.install("--output", "files", "--image", IMAGE)
    deployment = tmp_path / "files" / "existing-registry" / "deployment.yaml"
    deployment.write_text(deployment.read_text().replace("registry.example.com", "registry.example.org"))
    refused = await admin.install("--overlay", "files/existing-registry", code=1)
    assert "kubectl create secret docker-registry registry-credentials --docker-server=HOST" in refused.stderr


async def test_a_cluster_without_a_default_storage_class(admin: Admin) -> None:
    admin.has_list("storageclass", storage_class("slow"), storage_class("fast"))
    refused = await admin.install("--image", IMAGE, code=1)
    assert "no storage class is the cluster's default: the cluster has fast, slow; name one" in refused.stderr
    assert (
        "there is no storage class 'quick'"
        in (await admin.install("--image", IMAGE, "--storage-class", "quick", code=1)).stderr
    )
    assert not admin.has_applied

    await admin.install("--image", IMAGE, "--storage-class", "fast")
    claims = [found for found in admin.applied if found["kind"] == "PersistentVolumeClaim"]
    assert ["fast", "fast"] == [claim["spec"]["storageClassName"] for claim in claims]


async def test_claims_that_are_there_need_no_storage_class(admin: Admin) -> None:
    admin.has_list("storageclass")
    for name in ("registry-spooler-spool", "registry-spooler-registry"):
        admin.has("persistentvolumeclaim", name)
    await admin.install("--image", IMAGE)
    assert admin.has_applied


async def test_ephemeral_needs_no_storage_class(admin: Admin) -> None:
    admin.has_list("storageclass")
    await admin.install("--image", IMAGE, "--overlay", "ephemeral")
    assert admin.has_applied


async def test_monitoring_is_fitted_to_the_prometheus_that_is_there(admin: Admin) -> None:
    selector = {"matchLabels": {"release": "kube-prometheus-stack"}}
    admin.has_list(
        "prometheuses.monitoring.coreos.com",
        {
            "metadata": {"name": "main", "namespace": "observability"},
            "spec": {"podMonitorSelector": selector, "ruleSelector": selector},
        },
    )
    done = await admin.install("--image", IMAGE, "--overlay", "monitoring")
    assert (
        'Prometheus observability/main looks for a PodMonitor with {"release": "kube-prometheus-stack"}' in done.stderr
    )
    for kind in ("PodMonitor", "PrometheusRule"):
        labels = one(admin.applied, kind, "registry-spooler")["metadata"]["labels"]
        assert "kube-prometheus-stack" == labels["release"]
    policy = one(admin.applied, "NetworkPolicy", "registry-spooler-metrics")
    (peer,) = policy["spec"]["ingress"][0]["from"]
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert ["observability"] == expression["values"]


async def test_monitoring_without_a_prometheus_says_so(admin: Admin) -> None:
    done = await admin.install("--image", IMAGE, "--overlay", "monitoring")
    assert "no Prometheus was found" in done.stderr


async def test_monitoring_without_the_operator_is_refused(admin: Admin) -> None:
    admin.fails("prometheuses.monitoring.coreos.com", 'error: the server doesn\'t have a resource type "prometheuses"')
    refused = await admin.install("--image", IMAGE, "--overlay", "monitoring", code=1)
    assert "install the Prometheus operator first" in refused.stderr
    assert not admin.has_applied


async def test_an_overlay_that_there_is_not(admin: Admin) -> None:
    refused = await admin.install("--overlay", "no-such", code=2)
    overlays = "base, ephemeral, secure, monitoring, shared-spool, existing-registry"
    assert f"nor one of {overlays}" in refused.stderr


async def test_images_that_the_nodes_cannot_get_are_told_before_anything_is_installed(admin: Admin) -> None:
    admin.cannot_pull("dial tcp: lookup registry.example.org: no such host")
    refused = await admin.install("--image", IMAGE, code=1)
    assert "the nodes cannot get" in refused.stderr
    assert "no such host; nothing has been installed" in refused.stderr
    assert "--images FILE" in refused.stderr
    assert not admin.has_applied
    assert "delete pod/check --ignore-not-found --wait=false --grace-period=0 --force" in admin.asked


async def test_the_check_of_images_can_be_left_out(admin: Admin) -> None:
    admin.cannot_pull("no such host")
    await admin.install("--image", IMAGE, "--no-check")
    assert admin.has_applied


async def test_sizes(admin: Admin, tmp_path: Path) -> None:
    sizes = ("--image", IMAGE, "--registry-size", "200Gi", "--spool-size", "30Gi")
    await admin.install(*sizes)
    claims = {found["metadata"]["name"]: found for found in admin.applied if found["kind"] == "PersistentVolumeClaim"}
    wanted = {"registry-spooler-registry": "200Gi", "registry-spooler-spool": "30Gi"}
    assert wanted == {name: claim["spec"]["resources"]["requests"]["storage"] for name, claim in claims.items()}
    await admin.install(*sizes, "--output", str(tmp_path / "written"))
    written = await admin.install("--overlay", str(tmp_path / "written/base"), "--print")
    written_documents = list(yaml.safe_load_all(written.stdout))
    assert admin.applied[: len(written_documents)] == written_documents
    assert b"value: 30Gi" in written.stdout
    refused = await admin.install("--image", IMAGE, "--spool-size", "much", code=2)
    assert "write 20Gi or 500Mi" in refused.stderr


async def test_ephemeral_says_what_is_lost(admin: Admin) -> None:
    done = await admin.install("--image", IMAGE, "--ephemeral", "--spool-size", "3Gi")
    assert "all images and waiting files are lost when the pod is removed" in done.stderr
    assert not [found for found in admin.applied if found["kind"] == "PersistentVolumeClaim"]
    (deployment,) = [found for found in admin.applied if found["kind"] == "Deployment"]
    containers = {found["name"]: found for found in deployment["spec"]["template"]["spec"]["containers"]}
    assert "3Gi" == containers["spooler"]["resources"]["requests"]["ephemeral-storage"]
    await admin.install("--image", IMAGE, "--ephemeral", "--overlay", "secure", code=2)


async def test_a_dry_run_changes_nothing(admin: Admin) -> None:
    await admin.install("--image", IMAGE, "--dry-run")
    assert ["apply --dry-run=server --filename=-"] == [line for line in admin.asked if not line.startswith("kustomize")]


async def test_an_archive_without_the_images_is_refused(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(podman_docker(Image(names=("localhost/app:1",))))
    refused = await admin.install("--images", str(tmp_path / "app.tar"), code=1)
    assert "holds no image called registry-spooler; it has localhost/app:1" in refused.stderr
    assert not admin.has_applied


async def test_uninstall_asks_and_keeps_what_is_to_be_kept(admin: Admin) -> None:
    admin.has_list("deployments.apps", {"kind": "Deployment", "metadata": {"name": "registry-spooler"}})
    admin.has_list("persistentvolumeclaims", {"kind": "PersistentVolumeClaim", "metadata": {"name": "images"}})
    refused = await admin.terminal.spool("uninstall", code=1)
    assert "ALL IMAGES" in refused.stderr
    assert [] == _deleted(admin)

    await admin.terminal.spool("uninstall", "--yes", "--keep-data")
    assert ["delete Deployment registry-spooler --ignore-not-found --wait=false"] == _deleted(admin)

    await admin.terminal.spool("uninstall", "--yes")
    assert "delete PersistentVolumeClaim images --ignore-not-found --wait=false" == _deleted(admin)[-1]


def _deleted(admin: Admin) -> list[str]:
    return [line for line in admin.asked if line.startswith("delete")]


async def test_nothing_to_uninstall(admin: Admin) -> None:
    refused = await admin.terminal.spool("uninstall", "--yes", code=1)
    assert "choose another one with -n" in refused.stderr


def _hosting(admin: Admin) -> dict[str, Any]:
    (found,) = [found for found in admin.applied if found["kind"] == "ConfigMap"]
    return found


async def test_other_tools_are_told_where_the_registry_is(admin: Admin) -> None:
    await admin.install("-n", "images", "--image", IMAGE)
    assert "kube-public" == _hosting(admin)["metadata"]["namespace"]
    told = yaml.safe_load(_hosting(admin)["data"]["localRegistryHosting.v1"])
    assert "127.0.0.1:5001" == told["host"] == told["hostFromContainerRuntime"]
    assert "--namespace images " in told["help"]
    assert "rollout status daemonset/registry-node-access --timeout=180s --namespace=images" in admin.asked


async def test_the_registry_of_somebody_else_stays_announced(admin: Admin) -> None:
    admin.has("configmap", "local-registry-hosting")
    done = await admin.install("--image", IMAGE)
    assert "belongs to another registry and was left alone" in done.stderr
    assert not [found for found in admin.applied if found["kind"] == "ConfigMap"]


async def test_a_namespace_of_its_own_may_have_pods_on_the_nodes_network(admin: Admin) -> None:
    await admin.install("-n", "images", "--create-namespace", "--image", IMAGE)
    wanted = "label namespace images pod-security.kubernetes.io/enforce=privileged --namespace=images"
    assert wanted in admin.asked
