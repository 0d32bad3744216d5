"""`install`: the manifests that came with this program, applied by kubectl.

kubectl renders and applies them, so that what is installed can be looked at (`--print`), changed (`--output`) and
removed in the ways that every user of a cluster knows.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import click

from registry_spooler.errors import SpoolerError
from registry_spooler.kubectl.output import say_bytes, warn
from registry_spooler.kubectl.target import Target, target_options

DEPLOYMENT = "registry-spooler"
OVERLAYS = ("base", "secure", "monitoring", "shared-spool", "existing-registry")
ROLLOUT_SECONDS = 180


class InstallError(SpoolerError):
    """The installation cannot be done, or kubectl has refused it."""


@click.command()
@click.option(
    "--overlay", default="base", show_default=True, metavar="NAME|DIRECTORY", help=f"One of {', '.join(OVERLAYS)}."
)
@click.option("--image", metavar="NAME[:TAG]", help="The spooler's image, as the nodes pull it.")
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
    create_namespace: bool,
    no_wait: bool,
    only_print: bool,
    output: Path | None,
) -> None:
    """Install a registry with a spooler, or update it."""
    if output is not None:
        shutil.copytree(manifests(), output)
        warn(f"the manifests are in {output}; apply one with `kubectl apply --kustomize {output / overlay}`")
        return
    if create_namespace and target.namespace is None:
        raise click.UsageError("--create-namespace needs -n NAMESPACE")
    if shutil.which("kubectl") is None:
        raise InstallError("there is no kubectl, which applies the manifests; write them with --output DIRECTORY")
    with tempfile.TemporaryDirectory(prefix="kubectl-spool-") as folder:
        kustomization = _kustomization(Path(folder), overlay, image)
        if only_print:
            say_bytes(_kubectl(["kustomize", str(kustomization)], capture=True))
            return
        if create_namespace:
            _create_namespace(target)
        _kubectl(["apply", f"--kustomize={kustomization}", *target.kubectl_flags()])
    if not no_wait:
        _kubectl(
            ["rollout", "status", f"deployment/{DEPLOYMENT}", f"--timeout={ROLLOUT_SECONDS}s", *target.kubectl_flags()]
        )


def manifests() -> Path:
    """The folder of the manifests: within the package, or beside the sources in a checkout."""
    packaged = Path(str(resources.files("registry_spooler.kubectl"))) / "manifests"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "manifests"


def _kustomization(folder: Path, overlay: str, image: str | None) -> Path:
    """A kustomization on top of the overlay, in a folder beside a copy of it: kustomize takes relative paths only."""
    if overlay in OVERLAYS:
        shutil.copytree(manifests(), folder / "manifests")
        base = f"../manifests/{overlay}"
    elif (Path(overlay) / "kustomization.yaml").is_file():
        return Path(overlay)
    else:
        raise click.UsageError(
            f"{overlay!r} is neither a directory with a kustomization.yaml nor one of {', '.join(OVERLAYS)}"
        )
    lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization", f"resources: [{base}]"]
    if image is not None:
        name, tag = _split_image(image)
        lines += [
            "images:",
            f"  - name: {DEPLOYMENT}",
            f"    newName: {name}",
            *([f"    newTag: {tag!r}"] if tag else []),
        ]
    chosen = folder / "chosen"
    chosen.mkdir()
    (chosen / "kustomization.yaml").write_text("\n".join(lines) + "\n")
    return chosen


def _split_image(image: str) -> tuple[str, str]:
    head, slash, last = image.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag


def _create_namespace(target: Target) -> None:
    flags = [flag for flag in target.kubectl_flags() if not flag.startswith("--namespace=")]
    document = _kubectl(
        ["create", "namespace", str(target.namespace), "--dry-run=client", "--output=json", *flags], capture=True
    )
    _kubectl(["apply", "--filename=-", *flags], stdin=document)


def _kubectl(arguments: list[str], *, capture: bool = False, stdin: bytes | None = None) -> bytes:
    """Run kubectl; what it says goes to standard error, so that the answer stays ours."""
    command = ["kubectl", *arguments]
    try:
        # The user's own kubectl, from the user's PATH.
        done = subprocess.run(command, stdout=subprocess.PIPE, input=stdin, check=True)  # noqa: S603 - no shell reads it
    except subprocess.CalledProcessError as exc:
        raise InstallError(f"`kubectl {arguments[0]}` has failed; what it says stands above") from exc
    if not capture and done.stdout:
        for line in done.stdout.decode(errors="replace").splitlines():
            warn(line)
    return done.stdout
