"""The archives that are pushed, in the layouts of `podman save` and `skopeo copy`, made once and kept.

A docker archive holds its layers plain, as `<diff ID>.tar`, largest trouble for a client; an OCI archive holds them
compressed, as `blobs/sha256/<digest>`. Both exist as they are and within gzip. All four hold the same files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.material import Layer, Material

VERSION = 1
"""Raised when archives change, so that old ones in the cache are not taken for new ones."""
MIB = 1 << 20
GZIP_LEVEL = 6
"""What `gzip` and most builders use."""
COPY_BYTES = 1 << 20

Writer = Callable[[Path, Sequence[Layer]], None]


def cache_folder() -> Path:
    """Where archives, and the registries' storage while they run, are kept: outside the repository."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "registry-spooler" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class Family:
    """The same layers in every form; a path is made on the first run and found on the next."""

    docker_tar: Path
    docker_tgz: Path
    oci_tar: Path
    oci_tgz: Path


class Shelf:
    """The kept archives. Making one takes a while; what was cut short is never taken for finished."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder / f"v{VERSION}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tell = tell

    def family(self, layer_sizes_bytes: Sequence[int]) -> Family:
        """All four forms of an image with layers of about these sizes."""
        name = _name(layer_sizes_bytes)
        family = Family(
            *(self._folder / f"{name}.{form}" for form in ("docker.tar", "docker.tgz", "oci.tar", "oci.tgz"))
        )
        plain = {family.docker_tar: write_docker_archive, family.oci_tar: write_oci_archive}
        missing = {path: write for path, write in plain.items() if not path.exists()}
        if missing:
            self._make(layer_sizes_bytes, lambda layers: [(path, layers, write) for path, write in missing.items()])
        for tar, tgz in ((family.docker_tar, family.docker_tgz), (family.oci_tar, family.oci_tgz)):
            if not tgz.exists():
                self._tell(f"making {tgz}")
                _finish(tgz, lambda part, tar=tar: _compress(tar, part))
        return family

    def docker(self, layer_sizes_bytes: Sequence[int]) -> Path:
        """A docker archive alone."""
        path = self._folder / f"{_name(layer_sizes_bytes)}.docker.tar"
        if not path.exists():
            self._make(layer_sizes_bytes, lambda layers: [(path, layers, write_docker_archive)])
        return path

    def changed(self, layer_bytes: int, count: int) -> tuple[Path, Path, Path]:
        """An image, the same with its middle layer changed, and an image of that new layer alone."""
        stem = f"changed-{count}x{layer_bytes // MIB}M"
        before, after, alone = paths = tuple(
            self._folder / f"{stem}.{name}.tar" for name in ("before", "after", "alone")
        )
        if not all(path.exists() for path in paths):

            def plan(layers: Sequence[Layer]) -> list[tuple[Path, Sequence[Layer], Writer]]:
                *old, new = layers
                mixed = [*old[: count // 2], new, *old[count // 2 + 1 :]]
                return [
                    (before, old, write_docker_archive),
                    (after, mixed, write_docker_archive),
                    (alone, [new], write_docker_archive),
                ]

            self._make([layer_bytes] * (count + 1), plan)
        return before, after, alone

    def _make(
        self,
        sizes: Sequence[int],
        plan: Callable[[Sequence[Layer]], list[tuple[Path, Sequence[Layer], Writer]]],
    ) -> None:
        scratch = self._folder / "layers.part"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            material = Material()
            layers = [material.layer(scratch / str(number), size) for number, size in enumerate(sizes)]
            for path, chosen, write in plan(layers):
                self._tell(f"making {path}")
                _finish(path, lambda part, chosen=chosen, write=write: write(part, chosen))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def write_docker_archive(path: Path, layers: Sequence[Layer]) -> None:
    """As `podman save` and `skopeo copy docker-archive:` lay it out: layers, config, links for old readers, names."""
    config = json.dumps(_config([layer.digest for layer in layers])).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{layer.digest}.tar" for layer in layers]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for layer, name in zip(layers, names, strict=True):
            _add_file(tar, name, layer.path)
        _add_bytes(tar, config_name, config)
        for layer, name in zip(layers, names, strict=True):
            link = tarfile.TarInfo(f"{layer.digest[:60]}0000/layer.tar")
            link.type, link.linkname = tarfile.SYMTYPE, f"../{name}"
            tar.addfile(link)
        image = {"Config": config_name, "RepoTags": ["localhost/bench:latest"], "Layers": names}
        _add_bytes(tar, "manifest.json", json.dumps([image]).encode())
        _add_bytes(tar, "repositories", json.dumps({"localhost/bench": {"latest": layers[-1].digest}}).encode())


def write_oci_archive(path: Path, layers: Sequence[Layer]) -> None:
    """As `skopeo copy oci-archive:` lays it out: blobs in the order of their names, then index and marker."""
    config = json.dumps(_config([layer.digest for layer in layers])).encode()
    packed = [_packed(layer) for layer in layers]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("config.v1+json", _sha256(config), len(config)),
            "layers": [_descriptor("layer.v1.tar+gzip", blob.digest, blob.size) for blob in packed],
        }
    ).encode()
    top = _descriptor("manifest.v1+json", _sha256(manifest), len(manifest))
    top["annotations"] = {"org.opencontainers.image.ref.name": "localhost/bench:latest"}
    small = {_sha256(config): config, _sha256(manifest): manifest}
    large = {blob.digest: blob.path for blob in packed}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for digest in sorted([*small, *large]):
            if digest in small:
                _add_bytes(tar, f"blobs/sha256/{digest}", small[digest])
            else:
                _add_file(tar, f"blobs/sha256/{digest}", large[digest])
        _add_bytes(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode())
        _add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


def _name(sizes: Sequence[int]) -> str:
    if len(set(sizes)) == 1:
        return f"{len(sizes)}x{sizes[0] / MIB:.6g}M"
    return "-".join(f"{size / MIB:.6g}" for size in sizes) + "M"


def _finish(path: Path, write: Callable[[Path], None]) -> None:
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.rename(path)


def _packed(layer: Layer) -> Layer:
    path = layer.path.with_name(f"{layer.path.name}.gz")
    if not path.exists():
        _compress(layer.path, path)
    with path.open("rb") as file:
        return Layer(path, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _compress(source: Path, target: Path) -> None:
    with (
        source.open("rb") as plain,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as packed,
    ):
        shutil.copyfileobj(plain, packed, COPY_BYTES)


def _config(diff_ids: Sequence[str]) -> dict[str, Any]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in diff_ids]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(diff_ids))],
    }


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    with path.open("rb") as file:
        tar.addfile(member, file)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
