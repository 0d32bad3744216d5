"""Image archives as the well-known tools write them: podman, buildah, skopeo and umoci, in this very run."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

TOOL_TIMEOUT_SECONDS = 120.0
CONTAINERFILE = """\
FROM scratch
COPY hello /hello
COPY data /data
LABEL version={version}
CMD ["/hello"]
"""


@dataclass(frozen=True)
class RealArchives:
    """One small image (a text file, 2 MB of noise), `catalog/app:v1`, in every form; and `catalog/app:v2` beside it."""

    folder: Path

    def path(self, name: str) -> Path:
        """One of the archives, by the name of its producer."""
        return self.folder / f"{name}.tar"


SINGLE = (
    "podman-docker",
    "podman-oci",
    "buildah-docker",
    "buildah-oci",
    "skopeo-docker",
    "skopeo-oci",
    "skopeo-oci-zstd",
    "umoci-oci",
)
"""The archives of `catalog/app:v1` alone."""

SEVERAL = "podman-several"
"""A docker archive with `catalog/app:v1` and `catalog/app:v2`."""


def make_archives(folder: Path) -> RealArchives:
    """Build the images with podman, in a storage of their own, and let every tool write its archives."""
    # The run root's path has to be short, and a test's folder may not be.
    with tempfile.TemporaryDirectory(prefix="podman-") as run:
        return _make_archives(folder, ["--root", str(folder / "storage"), "--runroot", run, "--storage-driver", "vfs"])


def _make_archives(folder: Path, storage: list[str]) -> RealArchives:
    archives = RealArchives(folder)
    for version in ("v1", "v2"):
        context = folder / f"context-{version}"
        context.mkdir(parents=True)
        (context / "hello").write_text(f"hello {version}\n")
        (context / "data").write_bytes(os.urandom(1 << 20) + bytes(1 << 20))
        (context / "Containerfile").write_text(CONTAINERFILE.format(version=version))
        _run("podman", *storage, "build", "--quiet", "--tag", f"catalog/app:{version}", str(context))
    image = "localhost/catalog/app:v1"
    save = ("podman", *storage, "save", "--quiet")
    _run(*save, "--output", archives.path("podman-docker"), image)
    _run(*save, "--format", "oci-archive", "--output", archives.path("podman-oci"), image)
    _run(*save, "--multi-image-archive", "--output", archives.path(SEVERAL), image, "localhost/catalog/app:v2")
    push = ("buildah", *storage, "push", "--quiet", image)
    _run(*push, f"docker-archive:{archives.path('buildah-docker')}:catalog/app:v1")
    _run(*push, f"oci-archive:{archives.path('buildah-oci')}:catalog/app:v1")
    _run_skopeo(archives)
    _run_umoci(archives)
    return archives


def _run_skopeo(archives: RealArchives) -> None:
    copy = ("skopeo", "--insecure-policy", "copy", "--quiet", f"docker-archive:{archives.path('podman-docker')}")
    _run(*copy, f"docker-archive:{archives.path('skopeo-docker')}:catalog/app:v1")
    _run(*copy, f"oci-archive:{archives.path('skopeo-oci')}:v1")
    # Only oci: takes the compression from the command line; the archive is made from that.
    layout = f"oci:{archives.folder / 'zstd'}:v1"
    _run(*copy, "--format", "oci", "--dest-compress-format", "zstd", layout)
    _run("skopeo", "--insecure-policy", "copy", "--quiet", layout, f"oci-archive:{archives.path('skopeo-oci-zstd')}:v1")


def _run_umoci(archives: RealArchives) -> None:
    layout = archives.folder / "umoci"
    source = f"docker-archive:{archives.path('podman-docker')}"
    _run("skopeo", "--insecure-policy", "copy", "--quiet", source, f"oci:{layout}:v1")
    _run("umoci", "config", "--image", f"{layout}:v1", "--author", "the tests")
    _run("umoci", "gc", "--layout", layout)
    with tarfile.open(archives.path("umoci-oci"), "w") as tar:
        tar.add(layout, ".")


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=TOOL_TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
