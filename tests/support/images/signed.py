"""What speaks of an image, in the shapes in which cosign, Hauler, BuildKit, containerd and oras write it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from support.images import archives
from support.images.archive_parts import Entry, Image, dumps, hexdigest
from support.images.archives import (
    CONFIG,
    INDEX,
    MANIFEST,
    blob,
    descriptor,
    oci_blobs,
    oci_index,
    oci_manifest,
    platform_of,
)

ARM = Image(platform="linux/arm64")
REF_NAME, IMAGE_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
CONTAINERD_SUBJECT = "io.containerd.manifest.subject"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True)
class Attached:
    """A manifest that speaks of another, with its blobs."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return f"sha256:{hexdigest(self.manifest)}"

    @property
    def entries(self) -> list[Entry]:
        return [blob(content) for content in (self.manifest, *self.blobs)]

    def listed(self, **annotations: str) -> dict[str, Any]:
        """As an index lists it."""
        return descriptor(MANIFEST, self.manifest, **({"annotations": annotations} if annotations else {}))


def signature(subject: bytes, *, signer: str = "key") -> Attached:
    """`cosign sign` of version 2: a simple signature, found by its tag."""
    payload = dumps(
        {
            "critical": {
                "identity": {"docker-reference": "registry.example/app"},
                "image": {"docker-manifest-digest": f"sha256:{hexdigest(subject)}"},
                "type": "cosign container image signature",
            },
            "optional": {"signer": signer},
        }
    )
    return _with_image_config(SIMPLE_SIGNING, payload, {"dev.cosignproject.cosign/signature": "MEUC"})


def attestation(subject: bytes) -> Attached:
    """`cosign attest` of version 2: an in-toto statement in a DSSE envelope."""
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "registry.example/app", "digest": {"sha256": hexdigest(subject)}}],
        "predicate": {},
    }
    payload = base64.b64encode(dumps(statement)).decode()
    envelope = {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": []}
    return _with_image_config(DSSE, dumps(envelope), {"dev.cosignproject.cosign/signature": ""})


def sbom(text: bytes = b"SPDXVersion: SPDX-2.2\n") -> Attached:
    """`cosign attach sbom`: nothing in it says of what it speaks."""
    return _with_image_config("text/spdx", text)


def bundle(subject: bytes, *, kind: str = MANIFEST, content: bytes = b'{"messageSignature":{}}') -> Attached:
    """`cosign sign` of version 3, and oras: a manifest with a subject."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor(BUNDLE, content)],
        "subject": descriptor(kind, subject),
        "annotations": {"dev.sigstore.bundle.content": "message-signature"},
    }
    return Attached(dumps(document), (b"{}", content))


def provenance(image: Image) -> Attached:
    """BuildKit's attestation of an image."""
    manifest, config = archives.attestation(image)
    return Attached(manifest, (config, archives.STATEMENT))


def _with_image_config(media_type: str, content: bytes, annotations: dict[str, str] | None = None) -> Attached:
    config = dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{hexdigest(content)}"]}})
    layer = descriptor(media_type, content, **({"annotations": annotations} if annotations else {}))
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config), "layers": [layer]}
    return Attached(dumps(document), (config, content))


def index_of(*images: Image) -> bytes:
    """An index with a platform for each image."""
    return oci_index([descriptor(MANIFEST, oci_manifest(image), platform=platform_of(image)) for image in images])


def layout_of(
    listed: Sequence[dict[str, Any]], *images: Image, index: bytes = b"", attached: Sequence[Attached]
) -> bytes:
    """An OCI layout that lists these, and holds these images, their index, and what speaks of them."""
    entries = [entry for image in images for entry in oci_blobs(image)]
    entries += [entry for one in attached for entry in one.entries] + ([blob(index)] if index else [])
    return archives.layout(entries, oci_index(listed))


def cosign_save(image: Image, attached: dict[str, Attached], *, unlisted: Sequence[Attached] = ()) -> bytes:
    """`cosign save`: the image and, by kind, its `sigs` and `atts`. Bundles are blobs that the index does not list."""
    kind = "dev.cosignproject.cosign/"
    listed = [descriptor(MANIFEST, oci_manifest(image), annotations={"kind": f"{kind}image"})]
    listed += [one.listed(kind=kind + name) for name, one in attached.items()]
    return layout_of(listed, image, attached=[*attached.values(), *unlisted])


def cosign_save_index(index: bytes, images: Sequence[Image], attached: dict[str, Attached]) -> bytes:
    """`cosign save` of an image for several platforms."""
    kind = "dev.cosignproject.cosign/"
    listed = [descriptor(INDEX, index, annotations={"kind": f"{kind}imageIndex"})]
    listed += [one.listed(kind=kind + name) for name, one in attached.items()]
    return layout_of(listed, *images, index=index, attached=list(attached.values()))


def hauler(stored: dict[Image, dict[str, Attached]], *, prefix: str = "dev.hauler/") -> bytes:
    """`hauler store save`: all that speaks of an image is called like the image."""
    listed: list[dict[str, Any]] = []
    for image, attached in stored.items():
        host, _, name = image.names[0].partition("/")
        names = {REF_NAME: name, IMAGE_NAME: f"{host}/{name}"}
        listed.append(descriptor(MANIFEST, oci_manifest(image), annotations={**names, "kind": f"{prefix}image"}))
        for kind, one in attached.items():
            full = f"{kind}/{hexdigest(one.manifest)}" if kind == "referrers" else kind
            listed.append(one.listed(**names, kind=prefix + full))
    attached_to_all = [one for attached in stored.values() for one in attached.values()]
    return layout_of(listed, *stored, attached=attached_to_all)
