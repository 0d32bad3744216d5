"""The images: ours, and `registry-spooler-VERSION-ARCH.tar`, one file with all that an install needs.

Both are OCI archives, with the names that a node gives to the manifests' images. An image is made for the machine that
makes it, and for others whose programs its kernel runs (binfmt_misc with qemu).

Flow: container/build → an OCI layout → our image's archive; the registry's image into the same layout → all in one.
"""

from __future__ import annotations

import json
import platform
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from release import sbom
from release.archives import write_layout
from release.project import ROOT, Project, ReleaseError
from support.containers.machine import BASE as DEBIAN
from support.containers.machine import Machine

NAMES = {"registry-spooler": "docker.io/library/registry-spooler", "registry": "docker.io/library/registry"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BUILD_SECONDS = 3600  # through an emulator it takes its time
_BILL = "/opt/registry-spooler/sbom.cdx.json"


def architectures() -> Iterator[str]:
    """The architectures that can be built for here, this machine's own first."""
    own = platform.machine()
    emulated = (machine for machine in ARCHITECTURES if Path("/proc/sys/fs/binfmt_misc", f"qemu-{machine}").exists())
    for machine in dict.fromkeys((own, *emulated)):
        yield ARCHITECTURES[machine]


def build(project: Project, architecture: str, *, base: str | None, registry_archive: Path | None) -> None:
    """Make and try both archives for one architecture.

    `base` is the image to build on: the Containerfile's, another one, or `debian` for one that is made of Debian's
    packages here. The registry's image is pulled by its digest, unless there is an archive of it.
    """
    with Machine() as place, tempfile.TemporaryDirectory() as folder:
        layout = Path(folder, "layout")
        spooler = _build_spooler(project, place, architecture, base, layout)
        alone = project.dist / f"registry-spooler-image-{project.version}-{architecture}.tar"
        write_layout(layout, alone, project.epoch)
        registry = _add_registry(place, architecture, registry_archive, layout)
        together = project.dist / f"registry-spooler-{project.version}-{architecture}.tar"
        write_layout(layout, together, project.epoch)
        _try(place, alone, {spooler: project.version})
        _try(place, together, {spooler: project.version, registry: "registry"})
        bill = project.dist / f"registry-spooler-image-{architecture}.cdx.json"
        bill.write_text(place.podman("run", "--rm", "--network=none", "--entrypoint=cat", spooler, _BILL))
        sbom.check(bill)


def pinned_registry() -> dict[str, str]:
    """The registry's image as the manifests pin it: `newName`, `newTag`, `digest`."""
    images = yaml.safe_load((ROOT / "manifests" / "base" / "kustomization.yaml").read_text())["images"]
    found: dict[str, str] = next(image for image in images if image["name"] == NAMES["registry"])
    return found


def _build_spooler(project: Project, place: Machine, architecture: str, base: str | None, layout: Path) -> str:
    name = f"{NAMES['registry-spooler']}:{project.version}"
    if base == "debian":
        place.import_base()
        base = DEBIAN
    place.environment["SOURCE_DATE_EPOCH"] = str(project.epoch)
    _run(
        place,
        *(str(ROOT / "container" / "build"), *(("--base", base) if base else ()), "--tag", name, "--"),
        *("--isolation=chroot", "--network=host", f"--timestamp={project.epoch}", f"--platform=linux/{architecture}"),
    )
    _run(place, "buildah", "push", "--quiet", "--format=oci", name, f"oci:{layout}:{name}")
    return name


def _add_registry(place: Machine, architecture: str, archive: Path | None, layout: Path) -> str:
    pinned = pinned_registry()
    name = f"{pinned['newName']}:{pinned['newTag']}"
    source = f"docker://{pinned['newName']}@{pinned['digest']}" if archive is None else _transport(archive)
    try:
        _run(
            place,
            *("skopeo", f"--override-arch={architecture}", "--override-os=linux", "copy", "--quiet"),
            *("--format=oci", source, f"oci:{layout}:{name}"),
        )
    except ReleaseError as exc:
        raise ReleaseError(f"no image of the registry: set REGISTRY_IMAGE to an archive of it\n{exc}") from exc
    found = json.loads(_run(place, "skopeo", "inspect", "--config", f"oci:{layout}:{name}"))["architecture"]
    if found != architecture:
        raise ReleaseError(f"{source} is for {found}, not for {architecture}")
    return name


def _transport(archive: Path) -> str:
    with tarfile.open(archive) as tar:
        kind = (
            "oci-archive" if "oci-layout" in (name.removeprefix("./") for name in tar.getnames()) else "docker-archive"
        )
    return f"{kind}:{archive}"


def _try(place: Machine, archive: Path, expected: dict[str, str]) -> None:
    """Load each image from the archive under its name, and ask its program for its version."""
    for name, wanted in expected.items():
        place.podman("rmi", "--force", name, check=False)
        _run(place, "skopeo", "copy", "--quiet", f"oci-archive:{archive}:{name}", f"containers-storage:{name}")
        printed = place.podman("run", "--rm", "--network=none", "--read-only", name, "--version")
        if wanted not in printed:
            raise ReleaseError(f"{name} in {archive.name} says {printed!r}")


def _run(place: Machine, *command: str) -> str:
    try:
        return place.run(*command, seconds=_BUILD_SECONDS)
    except AssertionError as exc:
        raise ReleaseError(str(exc)) from exc
