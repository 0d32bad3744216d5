"""The manifests that came with this program: fitted to a user's choices, and rendered and applied by kubectl."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import click

from registry_spooler.cli.kubectl.target import ClusterTarget
from registry_spooler.cli.printing import warn
from registry_spooler.errors import SpoolerError

_PROGRAM: Final = "kubectl"
"""The user's own, from the user's PATH."""


class InstallError(SpoolerError):
    """The installation cannot be done, or kubectl has refused it."""

    reason: str
    sentence = "{reason}"


class KubectlError(InstallError):
    """kubectl has refused something; `reason` is the last line that it wrote to standard error."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Runs kubectl for a target."""

    target: ClusterTarget

    @staticmethod
    def is_here() -> bool:
        """Return whether there is a kubectl on the PATH."""
        return shutil.which(_PROGRAM) is not None

    @property
    def namespace(self) -> str | None:
        """The namespace that was asked for; None means the context's own."""
        return self.target.namespace

    def run(self, *arguments: str, stdin: bytes | None = None, cluster_wide: bool = False) -> None:
        """Run kubectl for the target; what it says is shown on standard error. InstallError if it fails."""
        done = subprocess.run(  # noqa: S603 - no shell reads it
            [_PROGRAM, *arguments, *self._flags(cluster_wide=cluster_wide)],
            stdout=subprocess.PIPE,
            input=stdin,
            check=False,
        )
        if done.stdout:
            warn_lines(done.stdout)
        if done.returncode:
            raise InstallError(f"`kubectl {arguments[0]}` has failed; what it says stands above")

    def read(self, *arguments: str, cluster_wide: bool = False) -> bytes:
        """Return what kubectl prints. KubectlError if it fails."""
        flags = [] if arguments[0] == "kustomize" else self._flags(cluster_wide=cluster_wide)
        done = subprocess.run([_PROGRAM, *arguments, *flags], capture_output=True, check=False)  # noqa: S603 - as above
        if done.returncode:
            raise KubectlError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
        return done.stdout

    def create(self, document: dict[str, Any]) -> str:
        """Create an object, and return `KIND/NAME`. KubectlError if it may not be made."""
        done = subprocess.run(  # noqa: S603 - as above
            [_PROGRAM, "create", "--filename=-", "--output=name", *self._flags()],
            input=json.dumps(document).encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise KubectlError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
        return done.stdout.decode().strip()

    def get(self, *arguments: str, cluster_wide: bool = False) -> list[dict[str, Any]]:
        """Return the objects that `kubectl get` finds, none if there are none. KubectlError if it may not look."""
        text = self.read("get", *arguments, "--ignore-not-found", "--output=json", cluster_wide=cluster_wide)
        found: dict[str, Any] = json.loads(text) if text.strip() else {"items": []}
        items: list[dict[str, Any]] = found.get("items", [found])
        return items

    def _flags(self, *, cluster_wide: bool = False) -> list[str]:
        flags = self.target.kubectl_flags()
        return [flag for flag in flags if not (cluster_wide and flag.startswith("--namespace="))]


def warn_lines(text: bytes) -> None:
    """Show lines for people, beside the answer."""
    for line in text.decode(errors="replace").strip().splitlines():
        warn(line)


OVERLAYS: Final = ("base", "ephemeral", "secure", "monitoring", "shared-spool", "existing-registry")
SPOOLERS: Final = ("spooler", "node-access")
"""The containers that run the spooler's image."""
REGISTRIES: Final = ("registry", "registry-reader")
_VOLUMES: Final = {"registry": "registry", "spooler": "spool"}
"""The volume that each container fills."""
_EPHEMERAL: Final = "ephemeral-storage"
_SPOOL_LIMIT: Final = "REGISTRY_SPOOLER_SPOOL_LIMIT"
PART_OF: Final = ("app.kubernetes.io/part-of", "registry-spooler")
"""The label of everything that is installed."""
HOSTING: Final = "local-registry-hosting"
"""The ConfigMap of KEP-1755, in the namespace kube-public."""
_RECORD: Final = ".kubectl-spool.json"
"""In a directory that --output wrote: its files' checksums, so that it may be written again."""
_PLACEHOLDERS: Final = ("registry-spooler:", "https://registry.example.com")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a user wants to be otherwise than the manifests have it."""

    image: str | None = None
    registry_image: str | None = None
    storage_class: str | None = None
    registry_size: str | None = None
    spool_size: str | None = None
    """Quantities as Kubernetes writes them: `20Gi`."""

    @property
    def sizes(self) -> dict[str, str]:
        """What is chosen, by the names of the volumes and the ends of the claims' names."""
        chosen = {"registry": self.registry_size, "spool": self.spool_size}
        return {name: size for name, size in chosen.items() if size is not None}


def manifests() -> Path:
    """Return the folder of the manifests: within the package, or beside the sources in a checkout."""
    packaged = Path(str(resources.files("registry_spooler.cli.kubectl"))) / "manifests"
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "manifests"


def render(kubectl: Kubectl, overlay: str, choices: Choices) -> list[Document]:
    """Return an overlay's documents with the choices in them; a usage error if something is still to be chosen."""
    import yaml

    text = kubectl.read("kustomize", str(_folder(overlay)))
    documents: list[Document] = [document for document in yaml.safe_load_all(text) if document]
    _set_images(documents, choices)
    for claim in of_kind(documents, "PersistentVolumeClaim"):
        if choices.storage_class is not None:
            claim["spec"]["storageClassName"] = choices.storage_class
    _set_sizes(documents, choices)
    _check_chosen(documents)
    return documents


def to_yaml(documents: list[Document]) -> bytes:
    """Return the documents as kubectl takes them."""
    import yaml

    text: str = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)
    return text.encode()


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    """Return the documents of one kind."""
    return [document for document in documents if document["kind"] == kind]


def pods(documents: list[Document]) -> list[Document]:
    """Return the specifications of the pods that the documents ask for."""
    kinds = ("Deployment", "DaemonSet")
    return [document["spec"]["template"]["spec"] for kind in kinds for document in of_kind(documents, kind)]


def containers_of(pod: Document) -> list[Document]:
    """Return a pod's containers, the sidecars first."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def all_containers(documents: list[Document]) -> list[Document]:
    """Return the containers of all pods."""
    return [container for pod in pods(documents) for container in containers_of(pod)]


def write(directory: Path, choices: Choices) -> None:
    """Write all manifests into a directory, over those that an earlier call wrote there and nobody changed."""
    files = dict(_files(choices))
    record = directory / _RECORD
    written: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    if not record.exists() and directory.is_dir() and any(directory.iterdir()):
        raise InstallError(f"{directory} is not empty, and was not written by this command; name another directory")
    changed = [name for name, checksum in written.items() if _checksum_of(directory / name) not in (None, checksum)]
    if changed:
        raise InstallError(
            f"{', '.join(sorted(changed))} in {directory} has been changed since it was written; "
            "write into another directory and compare"
        )
    for name in written.keys() - files.keys():
        (directory / name).unlink(missing_ok=True)
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    record.write_text(json.dumps({name: _checksum(content) for name, content in files.items()}, indent=1))


def _folder(overlay: str) -> Path:
    if overlay in OVERLAYS:
        return manifests() / overlay
    if (Path(overlay) / "kustomization.yaml").is_file():
        return Path(overlay)
    raise click.UsageError(
        f"{overlay!r} is neither a directory with a kustomization.yaml nor one of {', '.join(OVERLAYS)}"
    )


def _set_images(documents: list[Document], choices: Choices) -> None:
    containers = all_containers(documents)
    for option, image, names in (
        ("--image", choices.image, SPOOLERS),
        ("--registry-image", choices.registry_image, REGISTRIES),
    ):
        found = [container for container in containers if container["name"] in names]
        if image is not None and not found:
            raise click.UsageError(f"{option}: there is no container named {names[0]!r} in these manifests")
        for container in found:
            container["image"] = image or container["image"]


def _set_sizes(documents: list[Document], choices: Choices) -> None:
    for name, size in choices.sizes.items():
        for claim in of_kind(documents, "PersistentVolumeClaim"):
            if claim["metadata"]["name"].endswith(f"-{name}"):
                claim["spec"]["resources"]["requests"]["storage"] = size
    for container in all_containers(documents):
        requests, volume = container.get("resources", {}).get("requests", {}), _VOLUMES.get(container["name"])
        if _EPHEMERAL in requests and volume in choices.sizes:
            requests[_EPHEMERAL] = choices.sizes[volume]
        for variable in container.get("env", ()):
            if variable["name"] == _SPOOL_LIMIT and choices.spool_size is not None:
                variable["value"] = choices.spool_size


def _check_chosen(documents: list[Document]) -> None:
    """Refuse what is in the manifests only to be replaced."""
    image, registry = _PLACEHOLDERS
    for container in all_containers(documents):
        if container["image"].startswith(image):
            raise click.UsageError(
                "say which image of Registry Spooler the nodes are to run: --image NAME:TAG. None is published; "
                "build one with `container/build --tag NAME:TAG`, and push it to where the nodes pull from"
            )
        if any(variable.get("value") == registry for variable in container.get("env", ())):
            raise click.UsageError(
                f"the registry is still {registry}: write the manifests with --output DIRECTORY, put your registry "
                "into existing-registry/deployment.yaml, and install with --overlay DIRECTORY/existing-registry"
            )


def _files(choices: Choices) -> Iterator[tuple[str, bytes]]:
    root = manifests()
    for path in sorted(root.rglob("*")):
        if path.is_file() and root / "chart" not in path.parents:
            name, content = path.relative_to(root).as_posix(), path.read_bytes()
            if name == "base/kustomization.yaml":
                content = _with_images(content.decode(), choices).encode()
            else:
                content = _with_choices(content.decode(), path.name, choices).encode()
            yield name, content


def _with_choices(text: str, name: str, choices: Choices) -> str:
    """Return a manifest as `render` would make it, with its comments."""
    if name in ("claims.yaml", "claim.yaml") and choices.storage_class is not None:
        text = text.replace("spec:\n", f"spec:\n  storageClassName: {choices.storage_class}\n")
    for volume, size in choices.sizes.items():
        claim = rf"(?s)(name: registry-spooler-{volume}\n(?:(?!---).)*?storage: )\S+"
        container = next(name for name, of in _VOLUMES.items() if of == volume)
        request = rf"(- name: {container}\n\s+resources:\n\s+requests:\n\s+{_EPHEMERAL}: )\S+"
        for pattern in (claim, request):
            text = re.sub(pattern, rf"\g<1>{size}", text)
    if choices.spool_size is not None:
        text = re.sub(rf"(name: {_SPOOL_LIMIT}\n\s+value: )\S+", rf"\g<1>{choices.spool_size}", text)
    return text


def _with_images(text: str, choices: Choices) -> str:
    for name, image in (("registry-spooler", choices.image), ("docker.io/library/registry", choices.registry_image)):
        if image is not None:
            lines = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in _parts(image))
            found = re.search(rf"(?m)^  - name: {re.escape(name)}\n((?:    .*\n)+)", text)
            assert found is not None  # the manifests are the program's own
            text = text[: found.start(1)] + lines + text[found.end(1) :]
    return text


def _parts(image: str) -> Iterator[tuple[str, str]]:
    """The parts of an image's name as kustomize wants them."""
    named, _, digest = image.partition("@")
    head, slash, last = named.rpartition("/")
    name, _, tag = last.partition(":")
    yield "newName", head + slash + name
    if tag or not digest:
        yield "newTag", tag or "latest"
    if digest:
        yield "digest", digest


def _checksum_of(path: Path) -> str | None:
    return _checksum(path.read_bytes()) if path.is_file() else None


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
