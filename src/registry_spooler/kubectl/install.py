"""`install`: the manifests that came with this program, applied by kubectl.

kubectl renders and applies them, so that what is installed can be looked at (`--print`), changed (`--output`) and
removed in the ways that every user of a cluster knows. What it needs is looked for before anything is applied.
"""

from __future__ import annotations

from pathlib import Path

import click

from registry_spooler.kubectl.applying import InstallError, Kubectl
from registry_spooler.kubectl.manifests import OVERLAYS, Choices, render, to_yaml, write
from registry_spooler.kubectl.output import say_bytes, warn
from registry_spooler.kubectl.prerequisites import check_all
from registry_spooler.kubectl.target import Target, target_options

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
    target: Target,
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
