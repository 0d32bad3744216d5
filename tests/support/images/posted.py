"""Images put into a registry by plain HTTP, part by part, with no code of the project."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from support.registries.verify import Registry

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
TIMEOUT_SECONDS = 60.0

Descriptor = dict[str, Any]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer_tar(files: dict[str, bytes]) -> bytes:
    """A layer, not compressed, with these files in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@dataclass(frozen=True)
class Poster:
    """Puts what a test needs into one repository."""

    registry: Registry
    repository: str

    def blob(self, content: bytes, media_type: str) -> Descriptor:
        start = self._request("POST", f"/v2/{self.repository}/blobs/uploads/")
        location = urllib.parse.urljoin(self.registry.url, str(start["Location"]))
        digest = sha256(content)
        end = urllib.request.Request(f"{location}&digest={digest}", data=content, method="PUT")
        end.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(end, timeout=TIMEOUT_SECONDS) as response:
            assert response.status == 201
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def manifest(self, document: dict[str, Any], *, tag: str | None = None) -> Descriptor:
        """The document, byte for byte as JSON writes it here, under its digest or a tag."""
        content = json.dumps(document, indent=1).encode()
        target = tag or sha256(content)
        self._request("PUT", f"/v2/{self.repository}/manifests/{target}", content, document["mediaType"])
        return {"mediaType": document["mediaType"], "digest": sha256(content), "size": len(content)}

    def image(
        self,
        layers: list[bytes],
        *,
        tag: str | None = None,
        platform: dict[str, str] | None = None,
        family: str = OCI,
    ) -> Descriptor:
        """An image of gzip layers that hold these tars."""
        types = {
            OCI: ("manifest.v1+json", "config.v1+json", "layer.v1.tar+gzip"),
            DOCKER: ("distribution.manifest.v2+json", "container.image.v1+json", "image.rootfs.diff.tar.gzip"),
        }[family]
        config = {
            **(platform or {"os": "linux", "architecture": "amd64"}),
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": family + types[0],
            "config": self.blob(json.dumps(config).encode(), family + types[1]),
            "layers": [self.blob(packed(layer), family + types[2]) for layer in layers],
        }
        return self.manifest(document, tag=tag)

    def index(self, children: list[Descriptor], *, tag: str | None = None) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": children}
        return self.manifest(document, tag=tag)

    def attestation(self, image: Descriptor) -> Descriptor:
        """What BuildKit puts beside an image, as the index lists it."""
        statement = self.blob(b'{"_type":"https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")
        document = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": self.blob(b'{"os":"unknown","architecture":"unknown","rootfs":{}}', OCI + "config.v1+json"),
            "layers": [statement],
        }
        return {
            **self.manifest(document),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": image["digest"],
            },
        }

    def two_platforms(self, *, tag: str = "latest") -> Descriptor:
        """An index of an amd64 and an arm64 image with one layer in common, and the first one's attestation."""
        common = layer_tar({"common": b"in both\n"})
        amd64 = self.image([common, layer_tar({"hello": b"amd64\n"})])
        arm64_platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
        arm64 = self.image([common, layer_tar({"hello": b"arm64\n"})], platform=arm64_platform)
        return self.index(
            [
                {**amd64, "platform": {"os": "linux", "architecture": "amd64"}},
                {**arm64, "platform": arm64_platform},
                self.attestation(amd64),
            ],
            tag=tag,
        )

    def _request(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        request = urllib.request.Request(self.registry.url + path, data=body, method=method)
        if content_type:
            request.add_header("Content-Type", content_type)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            assert response.status in (201, 202)
            return response.headers
