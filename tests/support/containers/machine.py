"""Containers without anybody's help: images are made of Debian packages, built by buildah and run by podman with runc.

Storage, locks and settings are the tests' own, so that nothing of the machine's containers is touched. The only thing
that is kept is the base, a Debian with Python from debootstrap, under the user's cache folder: it takes half a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import orjson

ROOT = Path(__file__).resolve().parents[3]
BASE = "localhost/python:3.11-bookworm"
SPOOLER = "localhost/registry-spooler:0.1.0"
REGISTRY = "docker.io/library/registry:3"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"

CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{root}/tmp"
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{root}/graph"
runroot = "{root}/run"
"""
REGISTRY_CONTAINERFILE = f"""
# Debian's package in the place of the official image: the same program, the same entry point.
FROM {BASE}
COPY docker-registry /usr/local/bin/registry
COPY config.yml /etc/distribution/config.yml
VOLUME /var/lib/registry
ENTRYPOINT ["registry"]
CMD ["serve", "/etc/distribution/config.yml"]
"""
REGISTRY_CONFIG = """
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
"""


class Machine:
    """A place for images and containers, gone at the end."""

    def __enter__(self) -> Self:
        self.root = Path(tempfile.mkdtemp(prefix="spooler-"))
        for name, text in (("containers.conf", CONTAINERS_CONF), ("storage.conf", STORAGE_CONF)):
            (self.root / name).write_text(text.format(root=self.root))
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self.root / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.root / "storage.conf"),
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.run("podman", "pod", "rm", "--all", "--force", "--time", "0", check=False)
        self.run("podman", "rm", "--all", "--force", "--time", "0", check=False)
        self.run("umount", str(self.root / "graph" / "overlay"), check=False)
        shutil.rmtree(self.root)

    def run(self, *command: str, check: bool = True, text: str | None = None, seconds: float = 120) -> str:
        """Run a program in this place; its standard output."""
        done = subprocess.run(
            command, env=self.environment, input=text, capture_output=True, text=True, timeout=seconds, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def podman(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        return self.run("podman", *arguments, check=check, text=text)

    @property
    def podman_version(self) -> tuple[int, ...]:
        """Its major and minor number."""
        return tuple(map(int, self.podman("version", "--format={{.Client.Version}}").split(".")[:2]))

    def inspect(self, image: str) -> dict[str, Any]:
        """What podman knows of an image."""
        found: dict[str, Any] = orjson.loads(self.podman("image", "inspect", image))[0]
        return found

    def import_base(self) -> None:
        """The base image. An imported root file system has no PATH of its own."""
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.podman("import", "--quiet", "--change", path, str(base_archive()), BASE)

    def build_spooler(self) -> None:
        """The image, by the command that the README names."""
        self.run(
            sys.executable,
            str(ROOT / "container" / "build"),
            "--base",
            BASE,
            "--tag",
            SPOOLER,
            "--",
            "--isolation=chroot",
            "--network=host",
            seconds=300,
        )

    def build_registry(self) -> None:
        """Debian's registry under the name that the manifests use."""
        folder = self.root / "registry-image"
        folder.mkdir()
        shutil.copy("/usr/bin/docker-registry", folder)
        (folder / "config.yml").write_text(REGISTRY_CONFIG)
        (folder / "Containerfile").write_text(REGISTRY_CONTAINERFILE)
        self.run("buildah", "bud", "--isolation=chroot", f"--tag={REGISTRY}", str(folder))


def save_images(archive: Path) -> None:
    """Build both images, and write them into one archive."""
    with Machine() as machine:
        machine.import_base()
        machine.build_spooler()
        machine.build_registry()
        machine.podman("save", "--multi-image-archive", f"--output={archive}", SPOOLER, REGISTRY)


def base_archive() -> Path:
    """The base's root file system in a tar: from the cache, or made once and kept there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "registry-spooler")
    archive = cache / "bookworm-python.tar"
    if archive.exists():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        target = Path(folder, "root")
        for command in (
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(target)],
            ["rm", "-rf", *(str(target / rest) for rest in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc"))],
            ["tar", "--numeric-owner", "-C", str(target), "-cf", f"{folder}/root.tar", "."],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
        Path(folder, "root.tar").rename(archive)
    return archive
