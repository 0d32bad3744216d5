"""`uninstall`: everything that `install` made goes, and the data only if it is to go."""

from __future__ import annotations

from typing import Any, Final

import click

from registry_spooler.cli.kubectl.install_manifests import HOSTING, PART_OF, InstallError, Kubectl, KubectlError
from registry_spooler.cli.kubectl.target import ClusterTarget, target_options
from registry_spooler.cli.printing import warn

_SELECTOR: Final = f"--selector={'='.join(PART_OF)}"
_CLAIM: Final = "persistentvolumeclaims"
_CLAIM_KIND: Final = "PersistentVolumeClaim"
_KINDS: Final = (
    *(
        "deployments.apps",
        "daemonsets.apps",
        "poddisruptionbudgets.policy",
        "services",
        "networkpolicies.networking.k8s.io",
    ),
    *("configmaps", "certificates.cert-manager.io", "issuers.cert-manager.io"),
    *("podmonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com"),
    *("rolebindings.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io", "serviceaccounts", _CLAIM),
)
"""What the manifests are made of, workloads first and data last."""


@click.command()
@click.option("--keep-data", is_flag=True, help="Keep the volumes, with all images and waiting files.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@target_options
def uninstall(target: ClusterTarget, keep_data: bool, yes: bool) -> None:
    """Remove everything that `install` made from the namespace, images included unless they are to be kept."""
    kubectl = Kubectl(target)
    kinds = [kind for kind in _KINDS if not (keep_data and kind == _CLAIM)]
    found = [item for kind in kinds for item in _found(kubectl, kind)]
    if not found:
        raise InstallError("Registry Spooler is not installed in this namespace; choose another one with -n")
    for item in found:
        warn(f"{item['kind']} {item['metadata']['name']}")
    lost = " ALL IMAGES of its registry are lost." if any(item["kind"] == _CLAIM_KIND for item in found) else ""
    if not yes and not _agrees(f"Remove these from {kubectl.namespace or 'this namespace'}?{lost}"):
        raise InstallError("nothing was removed; --yes does it without asking")
    for item in found:
        kubectl.run("delete", item["kind"], item["metadata"]["name"], "--ignore-not-found", "--wait=false")
    try:
        for kind in ("configmap", "rolebinding", "role"):
            if kubectl.get(kind, _SELECTOR, "--namespace=kube-public", cluster_wide=True):
                kubectl.run("delete", kind, HOSTING, "--namespace=kube-public", "--ignore-not-found", cluster_wide=True)
    except InstallError as exc:
        warn(f"the registry's address in kube-public could not be removed: {exc}")


def _agrees(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:  # nobody is there to ask
        return False


def _found(kubectl: Kubectl, kind: str) -> list[dict[str, Any]]:
    try:
        return kubectl.get(kind, _SELECTOR)
    except KubectlError as exc:
        if "resource type" not in exc.reason:
            raise
        return []  # the cluster does not know the kind, so it has none
