"""`install`: what has to be in the cluster is checked, then the manifests are applied.

Whatever may not be looked at is left to Kubernetes: installing does not need the right to read secrets.

kubectl renders and applies them, so that what is installed can be looked at (`--print`), changed (`--output`) and
removed in the ways that every user of a cluster knows. What it needs is looked for before anything is applied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from registry_spooler.cli.kubectl.install_manifests import (
    OVERLAYS,
    Choices,
    Document,
    InstallError,
    Kubectl,
    KubectlError,
    of_kind,
    pods,
    render,
    to_yaml,
    write,
)
from registry_spooler.cli.kubectl.target import ClusterTarget, target_options
from registry_spooler.cli.kubectl.terminal import say_bytes, warn

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
    for container in pod["containers"]:
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


DEPLOYMENT = "registry-spooler"
ROLLOUT_SECONDS = 180


@click.command()
@click.option(
    "--overlay", default="base", show_default=True, metavar="NAME|DIRECTORY", help=f"One of {', '.join(OVERLAYS)}."
)
@click.option("--image", metavar="NAME[:TAG]", help="The spooler's image, as the nodes pull it.")
@click.option("--registry-image", metavar="NAME[:TAG]", help="The registry's image, where it is not Docker Hub's.")
@click.option("--storage-class", metavar="NAME", help="For the volumes; the cluster's default otherwise.")
@click.option("--create-namespace", is_flag=True, help="Create the namespace first.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the pod runs.")
@click.option("--print", "only_print", is_flag=True, help="Print the manifests, and apply nothing.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIRECTORY", help="Write the manifests there, to change them."
)
@target_options
def install(
    target: ClusterTarget,
    overlay: str,
    image: str | None,
    registry_image: str | None,
    storage_class: str | None,
    create_namespace: bool,
    no_wait: bool,
    only_print: bool,
    output: Path | None,
) -> None:
    """Install a registry with a spooler, or update it."""
    choices = Choices(image=image, registry_image=registry_image, storage_class=storage_class)
    if output is not None:
        _write(output, overlay, choices)
        return
    if create_namespace and target.namespace is None:
        raise click.UsageError("--create-namespace needs -n NAMESPACE")
    if not Kubectl.is_here():
        raise InstallError("there is no kubectl, which applies the manifests; write them with --output DIRECTORY")
    kubectl = Kubectl(target)
    documents = render(kubectl, overlay, choices)
    if only_print:
        say_bytes(to_yaml(documents))
        return
    check_all(kubectl, documents)
    if create_namespace and not kubectl.get("namespace", str(target.namespace), cluster_wide=True):
        kubectl.run("create", "namespace", str(target.namespace))
    kubectl.run("apply", "--filename=-", stdin=to_yaml(documents))
    if not no_wait:
        kubectl.run("rollout", "status", f"deployment/{DEPLOYMENT}", f"--timeout={ROLLOUT_SECONDS}s")


def _write(output: Path, overlay: str, choices: Choices) -> None:
    if overlay not in OVERLAYS:
        raise click.UsageError(f"--output writes the manifests of this program; {overlay!r} is not one of them")
    write(output, choices)
    warn(f"the manifests are in {output}; apply one with `kubectl apply --kustomize {output / overlay}`")
    if choices.image is None:
        warn("before that, name the spooler's image in base/kustomization.yaml, or write them again with --image")
