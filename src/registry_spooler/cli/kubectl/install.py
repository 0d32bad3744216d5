"""`install`: what has to be in the cluster is checked, then the manifests are applied.

Whatever may not be looked at is left to Kubernetes: installing does not need the right to read secrets.

kubectl renders and applies them, so that what is installed can be looked at (`--print`), changed (`--output`) and
removed in the ways that every user of a cluster knows. What it needs is looked for before anything is applied.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from registry_spooler.cli.kubectl.install_manifests import (
    HOSTING,
    OVERLAYS,
    PART_OF,
    Choices,
    Document,
    InstallError,
    Kubectl,
    KubectlError,
    all_containers,
    containers_of,
    manifests,
    of_kind,
    pods,
    render,
    to_yaml,
    write,
)
from registry_spooler.cli.kubectl.load import load_images, names_in
from registry_spooler.cli.kubectl.target import ClusterTarget, target_options
from registry_spooler.cli.printing import say_bytes, warn
from registry_spooler.kubernetes.objects.image_check import CHECK_SECONDS, POLL_SECONDS, check_pod, image_state
from registry_spooler.text import quoted

_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_DOCKER_CONFIG: Final = ".dockerconfigjson"
_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"

Keys = dict[str, str]
"""A secret's keys, each with the flag of `kubectl create secret generic` that suits it."""


def check_all(kubectl: Kubectl, documents: list[Document]) -> None:
    """Check everything, and fit the monitoring to the Prometheus that is found. InstallError says what is missing."""
    for check in (_check_secrets, _check_storage, _fit_monitoring):
        _unless_hidden(check, kubectl, documents)


def _unless_hidden(
    check: Callable[[Kubectl, list[Document]], None], kubectl: Kubectl, documents: list[Document]
) -> None:
    try:
        check(kubectl, documents)
    except KubectlError as exc:
        if "forbidden" not in exc.reason.lower():
            raise
        warn(f"not checked: {exc.reason}")


def _check_secrets(kubectl: Kubectl, documents: list[Document]) -> None:
    wanted = needed_secrets(documents)
    missing = {name: keys for name, keys in wanted.items() if not kubectl.get("secret", name)}
    if not missing:
        return
    flag = f" --namespace {kubectl.namespace}" if kubectl.namespace else ""
    if kubectl.namespace and not kubectl.get("namespace", kubectl.namespace, cluster_wide=True):
        warn(f"kubectl create namespace {kubectl.namespace}")
    for name, keys in missing.items():
        warn(create_line(name, keys) + flag)
    several = len(missing) > 1
    raise InstallError(
        f"the secret{'s' if several else ''} {_listed([*missing])} {'are' if several else 'is'} missing, and nothing "
        "has been installed; the lines above create what is missing from your own files"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def needed_secrets(documents: list[Document]) -> dict[str, Keys]:
    """Return the secrets that the pods need and that nothing among the documents makes, with their keys."""
    found: dict[str, Keys] = {}
    for pod in pods(documents):
        for name, key, flag in _references(pod):
            keys = found.setdefault(name, {})
            if key and keys.get(key) != "--from-file":
                keys[key] = flag
    made = {document["spec"]["secretName"] for document in of_kind(documents, "Certificate")}
    made |= {document["metadata"]["name"] for document in of_kind(documents, "Secret")}
    return {name: keys for name, keys in found.items() if name not in made}


def _references(pod: Document) -> Iterator[tuple[str, str, str]]:
    for secret in pod.get("imagePullSecrets", ()):
        yield secret["name"], _DOCKER_CONFIG, ""
    for volume in pod.get("volumes", ()):
        if "secret" in volume and not volume["secret"].get("optional"):
            for item in volume["secret"].get("items") or [{"key": ""}]:
                yield volume["secret"]["secretName"], item["key"], "--from-file"
    for container in containers_of(pod):
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("secretKeyRef", {"optional": True})
            if not reference.get("optional"):
                yield reference["name"], reference["key"], "--from-literal"


def create_line(name: str, keys: Keys) -> str:
    """Return the kubectl command that creates a secret."""
    if _DOCKER_CONFIG in keys:
        login = "--docker-server=HOST --docker-username=USER --docker-password=PASSWORD"
        return f"kubectl create secret docker-registry {name} {login}"
    flags = [f"{flag}={key}" + ("=VALUE" if flag == "--from-literal" else "") for key, flag in keys.items()]
    return " ".join(["kubectl create secret generic", name, *flags])


def _check_storage(kubectl: Kubectl, documents: list[Document]) -> None:
    claims = [
        claim
        for claim in of_kind(documents, "PersistentVolumeClaim")
        if not kubectl.get("persistentvolumeclaim", claim["metadata"]["name"])
    ]
    if not claims:
        return
    classes = {found["metadata"]["name"]: found for found in kubectl.get("storageclass", cluster_wide=True)}
    known = f"the cluster has {', '.join(sorted(classes))}" if classes else "the cluster has none"
    way_out = "; name one with --storage-class, or install --overlay ephemeral, which loses all images with the pod"
    for claim in claims:
        wanted = claim["spec"].get("storageClassName")
        if wanted and wanted not in classes:
            raise InstallError(f"there is no storage class {wanted!r}: {known}{way_out}")
        if wanted is None and not any(map(_is_default, classes.values())):
            raise InstallError(f"no storage class is the cluster's default: {known}{way_out}")


def _is_default(storage_class: dict[str, Any]) -> bool:
    annotations = storage_class["metadata"].get("annotations") or {}
    return bool(annotations.get(_DEFAULT_CLASS) == "true")


def _fit_monitoring(kubectl: Kubectl, documents: list[Document]) -> None:
    """Let in every Prometheus of the cluster, and give what it is to find the labels that it looks for."""
    if not of_kind(documents, "PodMonitor"):
        return
    try:
        found = kubectl.get("prometheuses.monitoring.coreos.com", "--all-namespaces", cluster_wide=True)
    except KubectlError as exc:
        if "resource type" not in exc.reason:
            raise
        raise InstallError(
            "the cluster does not know PodMonitor and PrometheusRule: install the Prometheus operator first, or "
            "install another overlay"
        ) from exc
    if not found:
        warn(
            "no Prometheus was found; one in the namespace `monitoring` without a podMonitorSelector will find the pod"
        )
        return
    for prometheus in found:
        _label(documents, prometheus)
    _let_in(documents, sorted({prometheus["metadata"]["namespace"] for prometheus in found}))


def _label(documents: list[Document], prometheus: dict[str, Any]) -> None:
    for kind, selector in (("PodMonitor", "podMonitorSelector"), ("PrometheusRule", "ruleSelector")):
        chosen = prometheus["spec"].get(selector) or {}
        labels = chosen.get("matchLabels") or {}
        for document in of_kind(documents, kind):
            document["metadata"].setdefault("labels", {}).update(labels)
        shown = json.dumps(labels) if labels else "no label"
        name = f"{prometheus['metadata']['namespace']}/{prometheus['metadata']['name']}"
        warn(f"Prometheus {name} looks for a {kind} with {shown}, and will find it")
        if chosen.get("matchExpressions"):
            warn(f"… if it also fits {selector}.matchExpressions, which you have to see to")


def _let_in(documents: list[Document], namespaces: list[str]) -> None:
    for policy in of_kind(documents, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            for peer in rule.get("from", ()):
                if _NAMESPACE_NAME in peer.get("namespaceSelector", {}).get("matchLabels", {}):
                    values = {"key": _NAMESPACE_NAME, "operator": "In", "values": namespaces}
                    peer["namespaceSelector"] = {"matchExpressions": [values]}


DEPLOYMENT: Final = "registry-spooler"
_NAMESPACE_OF_CONTEXT: Final = "--output=jsonpath={..namespace}"
NODE_ACCESS: Final = "registry-node-access"
ROLLOUT_SECONDS: Final = 180
_SIZE: Final = re.compile(r"[1-9]\d*(?:\.\d+)?(?:[kMGTPE]|[KMGTPE]i)?")


class Size(click.ParamType[str]):
    """A quantity as Kubernetes writes it: `20Gi`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it; a usage error when it is none."""
        if not _SIZE.fullmatch(str(value)):
            self.fail(f"{quoted(str(value))} is no size; write 20Gi or 500Mi", param, ctx)
        return str(value)


@click.command()
@click.option(
    "--overlay", default="base", show_default=True, metavar="NAME|DIRECTORY", help=f"One of {', '.join(OVERLAYS)}."
)
@click.option(
    "--images",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Archive with the images: load it into all nodes first, so that nothing is pulled.",
)
@click.option("--image", metavar="NAME[:TAG]", help="The spooler's image, as the nodes pull it.")
@click.option("--registry-image", metavar="NAME[:TAG]", help="The registry's image (default: Docker Hub's).")
@click.option("--storage-class", metavar="NAME", help="Storage class of the volumes (default: the cluster's).")
@click.option("--registry-size", type=Size(), metavar="SIZE", help="Size of the registry's volume.  [50Gi]")
@click.option("--spool-size", type=Size(), metavar="SIZE", help="Size of the spool's volume.  [10Gi]")
@click.option("--ephemeral", is_flag=True, help="Use no volumes: all images are lost with the pod.")
@click.option("--create-namespace", is_flag=True, help="Create the namespace first.")
@click.option(
    "--socket", default="", metavar="PATH", help="With --images: path of containerd's socket on the nodes, if unusual."
)
@click.option("--no-check", is_flag=True, help="Do not check that the nodes can pull the images.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the pod runs.")
@click.option("--dry-run", is_flag=True, help="Let the API server check everything, but change nothing.")
@click.option("--print", "only_print", is_flag=True, help="Print the manifests instead of applying them.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="Write the manifests to this directory, to be edited.",
)
@target_options
def install(
    target: ClusterTarget,
    /,
    overlay: str,
    images: Path | None,
    ephemeral: bool,
    create_namespace: bool,
    socket: str,
    no_check: bool,
    no_wait: bool,
    dry_run: bool,
    only_print: bool,
    output: Path | None,
    **chosen: str | None,
) -> None:
    """Install a registry with a spooler, or update it.

    Images and waiting files are kept on volumes, whatever becomes of the pod. Nothing needs to be pulled if --images
    names an archive of the images, as a release has it (registry-spooler-VERSION-ARCH.tar).
    """
    overlay = _ephemeral(overlay) if ephemeral else overlay
    if create_namespace and target.namespace is None:
        raise click.UsageError("--create-namespace needs -n NAMESPACE")
    choices = _with_names_in(images, Choices(**chosen))
    if output is not None:
        _write(output, overlay, choices)
        return
    if not Kubectl.is_here():
        raise InstallError("there is no kubectl, which applies the manifests; write them with --output DIRECTORY")
    kubectl = Kubectl(target)
    documents = render(kubectl, overlay, choices)
    if only_print:
        say_bytes(to_yaml(documents))
    elif dry_run:
        kubectl.run("apply", "--dry-run=server", "--filename=-", stdin=to_yaml(documents))
    else:
        check_all(kubectl, documents)
        if create_namespace and not kubectl.get("namespace", str(target.namespace), cluster_wide=True):
            _create_namespace(kubectl, documents)
        if images is not None:
            load_images(target, (str(images),), all_nodes=True, socket=socket)
        elif not no_check:
            check_images(kubectl, documents)
        _apply(kubectl, documents, waits=not no_wait)


def _create_namespace(kubectl: Kubectl, documents: list[Document]) -> None:
    namespace = str(kubectl.namespace)
    kubectl.run("create", "namespace", namespace)
    if _pull_host(documents):
        # The pods on the nodes' own network; a cluster may enforce another level by default.
        kubectl.run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged")


def _apply(kubectl: Kubectl, documents: list[Document], *, waits: bool) -> None:
    kubectl.run("apply", "--filename=-", stdin=to_yaml(documents))
    if pull_host := _pull_host(documents):
        announce(kubectl, pull_host)
    if waits:
        for workload in [f"deployment/{DEPLOYMENT}", *([f"daemonset/{NODE_ACCESS}"] if pull_host else [])]:
            kubectl.run("rollout", "status", workload, f"--timeout={ROLLOUT_SECONDS}s")
        flag = f" -n {kubectl.namespace}" if kubectl.namespace else ""
        warn(f"ready; push the first image with `kubectl spool push{flag} FILE NAME:TAG`")


def _pull_host(documents: list[Document]) -> str:
    """Return where nodes reach the registry; an empty text without node access."""
    if not any(found["metadata"]["name"] == NODE_ACCESS for found in of_kind(documents, "DaemonSet")):
        return ""
    variables = [variable for container in all_containers(documents) for variable in container.get("env", ())]
    return next((str(found["value"]) for found in variables if found["name"] == "REGISTRY_SPOOLER_PULL_HOST"), "")


def announce(kubectl: Kubectl, pull_host: str) -> None:
    """Tell Tilt, ctlptl and other tools where the cluster's registry is (KEP-1755), unless it has another one."""
    public = "--namespace=kube-public"
    try:
        found = kubectl.get("configmap", HOSTING, public, cluster_wide=True)
        if found and (found[0]["metadata"].get("labels") or {}).get(PART_OF[0]) != PART_OF[1]:
            warn(f"the ConfigMap kube-public/{HOSTING} belongs to another registry and was left alone")
            return
        namespace = kubectl.namespace or kubectl.read("config", "view", "--minify", _NAMESPACE_OF_CONTEXT).decode()
        text = kubectl.read("kustomize", str(manifests() / HOSTING)).decode()
        port = pull_host.rpartition(":")[2]
        for word, now in (
            ("127.0.0.1:5001", pull_host),
            (" 5001:", f" {port}:"),
            ("--namespace registry ", f"--namespace {namespace or 'default'} "),
        ):
            text = text.replace(word, now)
        kubectl.run("apply", "--filename=-", stdin=text.encode(), cluster_wide=True)
    except InstallError as exc:
        warn(f"the registry's address could not be published in kube-public: {exc}")


def _ephemeral(overlay: str) -> str:
    if overlay not in ("base", "ephemeral"):
        raise click.UsageError(f"--ephemeral is an overlay of its own, and {overlay!r} is another one")
    warn("no volumes: all images and waiting files are lost when the pod is removed")
    return "ephemeral"


def _with_names_in(archive: Path | None, choices: Choices) -> Choices:
    """Return the choices with the names that the archive gives to the two images. InstallError if it lacks one."""
    if archive is None:
        return choices
    names = {name.rpartition("/")[2].partition(":")[0]: name for name in names_in(archive)}
    found = {"image": names.get("registry-spooler"), "registry_image": names.get("registry")}
    for field, name in found.items():
        if name is None and getattr(choices, field) is None:
            wanted = "registry-spooler" if field == "image" else "registry"
            raise InstallError(
                f"{archive} holds no image called {wanted}; it has {', '.join(names.values()) or 'none'}"
            )
    return replace(choices, **{field: name for field, name in found.items() if getattr(choices, field) is None})


def check_images(kubectl: Kubectl, documents: list[Document]) -> None:
    """Try whether the cluster can get every image. InstallError if it cannot get one."""
    try:
        for image, secrets in _images(documents).items():
            reason = _why_not(kubectl, image, secrets)
            if reason:
                raise InstallError(
                    f"the nodes cannot get {image}: {reason}; nothing has been installed. Bring the images to the "
                    "nodes with --images FILE, or name others with --image and --registry-image"
                )
    except KubectlError as exc:
        warn(f"not checked whether the nodes can get the images: {exc.reason}")


def _images(documents: list[Document]) -> dict[str, list[dict[str, str]]]:
    """Return every image with the secrets that it is pulled with."""
    return {
        container["image"]: pod.get("imagePullSecrets", [])
        for pod in pods(documents)
        for container in containers_of(pod)
    }


def _why_not(kubectl: Kubectl, image: str, secrets: list[dict[str, str]]) -> str:
    pod = kubectl.create(check_pod(image, pull_secrets=secrets))
    try:
        deadline = time.monotonic() + CHECK_SECONDS
        while time.monotonic() < deadline:
            found = kubectl.get(pod)
            reason = image_state(found[0].get("status") or {}) if found else "the pod that tried to pull it was deleted"
            if reason is None or reason:
                return reason or ""
            time.sleep(POLL_SECONDS)
        return "no answer from the kubelet within a minute"
    finally:
        kubectl.read("delete", pod, "--ignore-not-found", "--wait=false", "--grace-period=0", "--force")


def _write(output: Path, overlay: str, choices: Choices) -> None:
    if overlay not in OVERLAYS:
        raise click.UsageError(f"--output writes the manifests of this program; {overlay!r} is not one of them")
    write(output, choices)
    warn(f"the manifests are in {output}; apply one with `kubectl apply --kustomize {output / overlay}`")
    if choices.image is None:
        warn("before that, name the spooler's image in base/kustomization.yaml, or write them again with --image")
