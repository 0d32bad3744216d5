"""An independent reader of registries: what a push really left there, checked to the last byte.

It shares no code with the project. It speaks plain HTTP with the standard library, computes every digest and
size itself, decompresses every layer and compares it with the diff IDs of the image's config; `skopeo` gives a
second opinion. Anything wrong is an AssertionError.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Protocol

import zstandard

PIECE_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0
IMAGES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")


class Registry(Protocol):
    """Where to look: `url` without a path, and the CA when it is a private one."""

    url: str
    host: str
    certificate: Path | None


@dataclass(frozen=True, kw_only=True)
class Layer:
    media_type: str
    digest: str
    size: int
    diff_id: str
    """The digest of the bytes after decompression, as computed here."""
    unpacked_size: int


@dataclass(frozen=True, kw_only=True)
class Image:
    """A manifest or an index whose every byte has been read and found true."""

    digest: str
    media_type: str
    content: bytes
    """The manifest's own bytes."""
    manifest: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    children: tuple[Image, ...] = ()
    """The images of an index, in its order."""

    @property
    def diff_ids(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.layers)


class Reader:
    """Reads from one registry, logged in when a user is given."""

    def __init__(self, registry: Registry, *, username: str = "", password: str = "") -> None:
        self.registry = registry
        self.login = f"{username}:{password}" if username else ""
        context = ssl.create_default_context(cafile=registry.certificate) if registry.certificate else None
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def image(self, repository: str, reference: str = "latest") -> Image:
        """Read an image (or an index with all its images) and check every byte of it."""
        found = self.manifest(repository, reference)
        digest, content, media_type, manifest = found.digest, found.content, found.media_type, found.manifest
        if reference.startswith("sha256:"):
            assert digest == reference
        assert manifest["schemaVersion"] == 2
        assert manifest.get("mediaType", media_type) == media_type
        if media_type in INDEXES:
            children = tuple(self._child(repository, child) for child in manifest["manifests"])
            return Image(digest=digest, media_type=media_type, content=content, manifest=manifest, children=children)
        return self._image(repository, manifest, digest=digest, media_type=media_type, content=content)

    def manifest(self, repository: str, reference: str = "latest") -> Image:
        """An image's manifest only; nothing that it names is read."""
        with self._get(f"/v2/{repository}/manifests/{reference}", accept=", ".join(IMAGES + INDEXES)) as response:
            content = response.read()
            media_type = response.headers["Content-Type"]
            assert _sha256(content) == response.headers["Docker-Content-Digest"]
        return Image(digest=_sha256(content), media_type=media_type, content=content, manifest=json.loads(content))

    def has(self, repository: str, reference: str) -> bool:
        """Does the registry answer for this tag or digest?"""
        try:
            with self._get(f"/v2/{repository}/manifests/{reference}", accept=", ".join(IMAGES + INDEXES)):
                return True
        except urllib.error.HTTPError as exc:
            with exc:
                assert exc.code == 404
            return False

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository, sorted; empty when there is no such repository."""
        try:
            with self._get(f"/v2/{repository}/tags/list") as response:
                return sorted(json.loads(response.read())["tags"] or [])
        except urllib.error.HTTPError as exc:
            with exc:
                assert exc.code == 404
            return []

    def repositories(self) -> list[str]:
        """The catalogue, of up to 1,000 repositories."""
        with self._get("/v2/_catalog?n=1000") as response:
            return list(json.loads(response.read())["repositories"] or [])

    def blob(self, repository: str, digest: str) -> bytes:
        """A blob's bytes, when they have that digest."""
        content = b"".join(self._pieces(repository, digest))
        assert _sha256(content) == digest
        return content

    def unpacked(self, repository: str, layer: Layer) -> bytes:
        """A layer's bytes after decompression: for a raw file, the file."""
        return b"".join(_decompressed(iter([self.blob(repository, layer.digest)])))

    def _child(self, repository: str, descriptor: dict[str, Any]) -> Image:
        child = self.image(repository, descriptor["digest"])
        assert child.media_type == descriptor["mediaType"]
        assert len(child.content) == descriptor["size"]
        return child

    def _image(
        self, repository: str, manifest: dict[str, Any], *, digest: str, media_type: str, content: bytes
    ) -> Image:
        assert media_type in IMAGES
        config_content = self.blob(repository, manifest["config"]["digest"])
        assert len(config_content) == manifest["config"]["size"]
        layers = tuple(self._layer(repository, descriptor) for descriptor in manifest["layers"])
        config: dict[str, Any] = {}
        if manifest["config"]["mediaType"] in CONFIGS:
            config = json.loads(config_content)
            if all("tar" in layer.media_type for layer in layers):
                assert tuple(layer.diff_id for layer in layers) == tuple(config["rootfs"]["diff_ids"])
        return Image(
            digest=digest, media_type=media_type, content=content, manifest=manifest, config=config, layers=layers
        )

    def _layer(self, repository: str, descriptor: dict[str, Any]) -> Layer:
        packed, unpacked = hashlib.sha256(), hashlib.sha256()
        sizes = [0, 0]

        def measured() -> Iterator[bytes]:
            for piece in self._pieces(repository, descriptor["digest"]):
                packed.update(piece)
                sizes[0] += len(piece)
                yield piece

        for piece in _decompressed(measured()):
            unpacked.update(piece)
            sizes[1] += len(piece)
        assert f"sha256:{packed.hexdigest()}" == descriptor["digest"]
        assert sizes[0] == descriptor["size"]
        return Layer(
            media_type=descriptor["mediaType"],
            digest=descriptor["digest"],
            size=descriptor["size"],
            diff_id=f"sha256:{unpacked.hexdigest()}",
            unpacked_size=sizes[1],
        )

    def _pieces(self, repository: str, digest: str) -> Iterator[bytes]:
        with self._get(f"/v2/{repository}/blobs/{digest}") as response:
            while piece := response.read(PIECE_BYTES):
                yield piece

    def _get(self, path: str, *, accept: str = "*/*") -> HTTPResponse:
        request = urllib.request.Request(self.registry.url + path, headers={"Accept": accept})
        if self.login:
            request.add_header("Authorization", "Basic " + base64.b64encode(self.login.encode()).decode())
        response: HTTPResponse = self._opener.open(request, timeout=TIMEOUT_SECONDS)
        assert response.status == 200
        return response


def skopeo_inspect(registry: Registry, repository: str, tag: str = "latest", *, login: str = "") -> dict[str, Any]:
    """What skopeo says of an image: `Digest`, `Layers`, `Architecture` …; `login` is `user:password`."""
    command = ["skopeo", "inspect", *_skopeo_access(registry, login), f"docker://{registry.host}/{repository}:{tag}"]
    return dict(json.loads(_run(command)))


def skopeo_copy(registry: Registry, repository: str, tag: str, target: str, *, login: str = "") -> None:
    """Let skopeo read the whole image to `target` (`dir:/…`); it checks digests and sizes by itself."""
    access = [f"--src-{option[2:]}" for option in _skopeo_access(registry, login)]
    _run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--all",
            *access,
            f"docker://{registry.host}/{repository}:{tag}",
            target,
        ]
    )


def _skopeo_access(registry: Registry, login: str) -> list[str]:
    return ["--tls-verify=false", *([f"--creds={login}"] if login else [])]


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _decompressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Undo gzip or zstd, told by the first bytes; other content passes as it is."""
    first = next(pieces, b"")
    while len(first) < 4 and (more := next(pieces, b"")):
        first += more
    if first.startswith(b"\x1f\x8b"):
        yield from _gunzipped(first, pieces)
    elif first.startswith(b"\x28\xb5\x2f\xfd"):
        yield from _unzstd(first, pieces)
    else:
        yield first
        yield from pieces


def _gunzipped(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    decompressor, rest = zlib.decompressobj(wbits=31), first
    while True:
        if decompressor.eof and rest:
            decompressor = zlib.decompressobj(wbits=31)  # the next member of several
        yield decompressor.decompress(rest)
        rest = decompressor.unused_data or next(pieces, b"")
        if not rest:
            break
    assert decompressor.eof, "a gzip layer ends early"


def _unzstd(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    yield decompressor.decompress(first)
    for piece in pieces:
        yield decompressor.decompress(piece)
