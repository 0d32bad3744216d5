"""Every archive format that the spooler takes, written in code that reads like the archive.

Each function returns the bytes of an uncompressed tar; `archive_parts.COMPRESSORS` compresses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support.images.archive_parts import Entry, Folder, Image, Symlink, dumps, gz, hexdigest, layer, make_tar, read_tar

OCI = "application/vnd.oci.image"
INDEX, MANIFEST, CONFIG = f"{OCI}.index.v1+json", f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json"
LAYER, LAYER_GZIP = f"{OCI}.layer.v1.tar", f"{OCI}.layer.v1.tar+gzip"
LAYOUT: Entry = ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

# ---- docker archives


def docker_legacy(*images: Image, shared_as_symlink: bool = True) -> bytes:
    """`docker save` before 25: a folder per layer; a layer that comes twice is a symbolic link, before its target."""
    entries: list[Entry] = []
    items = []
    for image in images or (Image(),):
        folders = [hexdigest(f"{at} {image.diff_ids}".encode()) for at in range(len(image.layers))]
        places = {content: folder for folder, content in zip(folders, image.layers, strict=True)}
        for folder, content in sorted(zip(folders, image.layers, strict=True)):
            linked = shared_as_symlink and places[content] != folder
            data = Symlink(f"../{places[content]}/layer.tar") if linked else content
            entries += [
                (folder, Folder),
                (f"{folder}/VERSION", b"1.0"),
                (f"{folder}/json", b'{"id":"%s"}' % folder.encode()),
            ]
            entries += [(f"{folder}/layer.tar", data)]
        config = f"{hexdigest(image.config)}.json"
        entries += [(config, image.config)]
        items += [
            {"Config": config, "RepoTags": list(image.names) or None, "Layers": [f"{f}/layer.tar" for f in folders]}
        ]
    return make_tar([*entries, ("manifest.json", dumps(items)), ("repositories", b"{}")])


def podman_docker(*images: Image) -> bytes:
    """`podman save` and `skopeo copy … docker-archive:`: plain layers by diff ID, and links to them."""
    entries: dict[str, Any] = {}
    items = []
    for image in images or (Image(),):
        paths = [f"{hexdigest(content)}.tar" for content in image.layers]
        entries |= dict(zip(paths, image.layers, strict=True))
        entries[config := f"{hexdigest(image.config)}.json"] = image.config
        for at, path in enumerate(paths):
            folder = hexdigest(f"{at} {paths}".encode())
            entries |= {
                f"{folder}/layer.tar": Symlink(f"../{path}"),
                f"{folder}/VERSION": b"1.0",
                f"{folder}/json": b"{}",
            }
        items += [{"Config": config, "RepoTags": list(image.names) or None, "Layers": paths}]
    return make_tar([*entries.items(), ("manifest.json", dumps(items)), ("repositories", b"{}")])


def crane(*images: Image, compress: Any = gz, suffix: str = ".tar.gz") -> bytes:
    """`crane pull`, ko, kaniko: `sha256:<hex>` is the config, `<hex>.tar.gz` a layer, by the blob's digest."""
    entries: dict[str, bytes] = {}
    items = []
    for image in images or (Image(),):
        config = f"sha256:{hexdigest(image.config)}"
        blobs = [compress(content) for content in image.layers]
        paths = [f"{hexdigest(blob)}{suffix}" for blob in blobs]
        entries |= {config: image.config} | dict(zip(paths, blobs, strict=True))
        items += [{"Config": config, "RepoTags": list(image.names) or None, "Layers": paths}]
    return make_tar([*entries.items(), ("manifest.json", dumps(items))])


def jib(image: Image = Image()) -> bytes:  # noqa: B008 - frozen
    """Jib's docker tar: layers by digest, `config.json`, `manifest.json`."""
    blobs = {f"{hexdigest(content)}.tar.gz": gz(content) for content in image.layers}
    item = {"Config": "config.json", "RepoTags": list(image.names), "Layers": list(blobs)}
    return make_tar([*blobs.items(), ("config.json", image.config), ("manifest.json", dumps([item]))])


def rules_oci_docker(image: Image = Image(), *, compress: Any = gz) -> bytes:  # noqa: B008 - frozen
    """Bazel's rules_oci: layers in `blobs/sha256/<hex>.tar.gz`, whatever they are compressed with."""
    blobs = [compress(content) for content in image.layers]
    paths = [f"blobs/sha256/{hexdigest(blob)}.tar.gz" for blob in blobs]
    config = f"blobs/sha256/{hexdigest(image.config)}"
    item = {"Config": config, "RepoTags": list(image.names), "Layers": paths}
    return make_tar([(config, image.config), *zip(paths, blobs, strict=True), ("manifest.json", dumps([item]))])


# ---- OCI layouts


def descriptor(media_type: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hexdigest(content)}", "size": len(content)} | more


def blob(content: bytes) -> Entry:
    return f"blobs/sha256/{hexdigest(content)}", content


def oci_manifest(image: Image, *, compress: Any = gz) -> bytes:
    layer_type = LAYER if compress is bytes else LAYER_GZIP
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, image.config),
        "layers": [descriptor(layer_type, compress(content)) for content in image.layers],
    }
    return dumps(document)


def oci_index(manifests: Sequence[dict[str, Any]], **more: Any) -> bytes:
    return dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)} | more)


def platform_of(image: Image) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), image.platform.split("/"), strict=False))


def oci_blobs(image: Image, *, compress: Any = gz) -> list[Entry]:
    """All blobs of an image: its manifest, its config, its layers."""
    contents = [oci_manifest(image, compress=compress), image.config, *map(compress, image.layers)]
    return [blob(content) for content in contents]


def layout(entries: Sequence[Entry], index: bytes) -> bytes:
    """Name-sorted, `oci-layout` last, as containerd, BuildKit, podman and skopeo write it."""
    blobs = sorted(dict(entries).items())
    return make_tar([("blobs", Folder), ("blobs/sha256", Folder), *blobs, ("index.json", index), LAYOUT])


def oci_archive(*images: Image, compress: Any = gz, annotation: str = "org.opencontainers.image.ref.name") -> bytes:
    """`skopeo copy … oci-archive:` and `podman save --format oci-archive`: one entry per name."""
    images = images or (Image(),)
    entries = [entry for image in images for entry in oci_blobs(image, compress=compress)]
    manifests = [
        descriptor(
            MANIFEST, oci_manifest(image, compress=compress), **({"annotations": {annotation: name}} if name else {})
        )
        for image in images
        for name in image.names or ("",)
    ]
    return layout(entries, oci_index(manifests))


def docker_25(
    *images: Image, index_layers: Sequence[bytes] | None = None, in_index: bool = True, compress: Any = bytes
) -> bytes:
    """`docker save` since 25: an OCI layout of plain layers with a manifest.json beside it.

    `index_layers` in another order and `in_index=False` are what 25.0.0 got wrong. With containerd's store, the layers
    are compressed.
    """
    entries: list[Entry] = [blob(b'{"created":"2024-01-01T00:00:00Z"}')]
    manifests, items = [], []
    for image in images or (Image(),):
        entries += oci_blobs(image, compress=compress)
        manifest = oci_manifest(image, compress=compress)
        if index_layers is not None:
            wrong = Image(layers=tuple(index_layers))
            manifest = manifest.replace(
                dumps([descriptor(LAYER, content) for content in image.layers]),
                dumps([descriptor(LAYER, content) for content in wrong.layers]),
            )
            entries += [blob(manifest)]
        for name in image.names or ("",):
            tag = name.rpartition(":")[2]
            named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag} if name else {}
            manifests += [descriptor(MANIFEST, manifest, annotations=named)]
        items += [
            {
                "Config": f"blobs/sha256/{hexdigest(image.config)}",
                "RepoTags": list(image.names) or None,
                "Layers": [blob(compress(content))[0] for content in image.layers],
                "LayerSources": {f"sha256:{hexdigest(c)}": descriptor(LAYER, compress(c)) for c in image.layers},
            }
        ]
    tail: list[Entry] = [("manifest.json", dumps(items)), LAYOUT, ("repositories", b"{}")]
    return make_tar([*sorted(dict(entries).items()), ("index.json", oci_index(manifests if in_index else [])), *tail])


def containerd(
    images: Sequence[Image],
    *,
    name: str = "registry.example/app:1",
    missing: Sequence[Image] = (),
    attest: bool = False,
) -> bytes:
    """`ctr images export`, `docker save` of the containerd store, buildx: a nested index, one manifest per platform.

    Of the platforms in `missing` the index speaks, but nothing of them is there.
    """
    entries: list[Entry] = []
    children = []
    for image in images:
        manifest = oci_manifest(image)
        children += [descriptor(MANIFEST, manifest, platform=platform_of(image))]
        if image not in missing:
            entries += oci_blobs(image)
        if attest:
            statement, config = attestation(image)
            entries += [blob(statement), blob(config), blob(STATEMENT)]
            children += [attestation_descriptor(image, statement)]
    index = oci_index(children)
    named = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    top = oci_index([descriptor(INDEX, index, annotations=named if name else {})])
    return layout([*entries, blob(index)], top)


STATEMENT = b'{"_type":"https://in-toto.io/Statement/v0.1"}'


def attestation(image: Image) -> tuple[bytes, bytes]:
    """BuildKit's provenance of an image: a manifest and its config."""
    config = dumps({"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []}})
    layers = [descriptor("application/vnd.in-toto+json", STATEMENT)]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, config), "layers": layers}
    return dumps(document | {"annotations": {"of": hexdigest(image.config)}}), config


def attestation_descriptor(image: Image, statement: bytes) -> dict[str, Any]:
    return descriptor(
        MANIFEST,
        statement,
        platform={"os": "unknown", "architecture": "unknown"},
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": f"sha256:{hexdigest(oci_manifest(image))}",
        },
    )


def flat_index(*images: Image) -> bytes:
    """An index.json that is one image's own: a manifest for each platform, none with a name."""
    entries = [entry for image in images for entry in oci_blobs(image)]
    children = [descriptor(MANIFEST, oci_manifest(image), platform=platform_of(image)) for image in images]
    return layout(entries, oci_index(children))


def apko(*images: Image) -> bytes:
    """apko's multi-arch tarball: crane's, then manifests called `sha256:<hex>`, and index.json; no oci-layout."""
    entries: dict[str, bytes] = {}
    items, children = [], []
    for image in images:
        blobs = {f"{hexdigest(gz(content))}.tar.gz": gz(content) for content in image.layers}
        manifest = oci_manifest(image)
        config = f"sha256:{hexdigest(image.config)}"
        entries |= blobs | {config: image.config, f"sha256:{hexdigest(manifest)}": manifest}
        arch = image.platform.split("/")[1]
        items += [{"Config": config, "RepoTags": [f"{name}-{arch}" for name in image.names], "Layers": list(blobs)}]
        children += [descriptor(MANIFEST, manifest, platform=platform_of(image))]
    return make_tar([*entries.items(), ("manifest.json", dumps(items)), ("index.json", oci_index(children))])


def rules_oci(image: Image = Image()) -> bytes:  # noqa: B008 - frozen
    """Bazel's rules_oci as an OCI layout: `oci-layout` first."""
    named = {"org.opencontainers.image.ref.name": image.names[0]}
    index = oci_index([descriptor(MANIFEST, oci_manifest(image), annotations=named)])
    return make_tar([LAYOUT, *oci_blobs(image), ("index.json", index)])


def artifact(content: bytes = b"any bytes", *, title: str = "file.bin", name: str = "1") -> bytes:
    """`oras` and an OCI layout: a manifest with an artifact type, the empty config, and a titled blob."""
    empty = descriptor("application/vnd.oci.empty.v1+json", b"{}", data="e30=")
    titled = descriptor("application/octet-stream", content, annotations={"org.opencontainers.image.title": title})
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example", "config": empty}
    manifest = dumps(document | {"layers": [titled]})
    top = descriptor(
        MANIFEST,
        manifest,
        artifactType="application/vnd.example",
        annotations={"org.opencontainers.image.ref.name": name},
    )
    return layout([blob(manifest), blob(b"{}"), blob(content)], oci_index([top]))


# ---- what people do to archives


def thin(archive: bytes, *left_out: bytes) -> bytes:
    """Without some of its members, by their content: the registry is said to have them."""
    return make_tar([(path, content) for path, content in read_tar(archive).items() if content not in left_out])


def in_folder(archive: bytes, folder: str = "mydir") -> bytes:
    """`tar c mydir/` instead of `tar c -C mydir .`."""
    members = read_tar(archive).items()
    return make_tar([(f"{folder}/", Folder), *((f"{folder}/{path}", content) for path, content in members)])


EXAMPLES: dict[str, bytes] = {
    "docker-legacy": docker_legacy(Image(layers=(layer("first"), layer("second"), layer("first")))),
    "podman-docker": podman_docker(),
    "crane": crane(),
    "jib": jib(),
    "rules-oci-docker": rules_oci_docker(),
    "docker-25": docker_25(),
    "docker-25-containerd": docker_25(compress=gz),
    "oci-archive": oci_archive(),
    "oci-archive-plain": oci_archive(compress=bytes),
    "containerd": containerd([Image(), Image(platform="linux/arm64")]),
    "buildx": containerd([Image(), Image(platform="linux/arm64")], attest=True),
    "flat-index": flat_index(Image(), Image(platform="linux/arm64")),
    "apko": apko(Image(), Image(platform="linux/arm64")),
    "rules-oci": rules_oci(),
    "artifact": artifact(),
}
"""One archive of each format, each with one image."""
