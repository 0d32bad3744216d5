"""Archives that are made to hurt: small files that ask for much memory or time. Each function returns bytes."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import tarfile
from collections.abc import Iterable

import zstandard
from isal import isal_zlib

from registry_spooler.archive.tar import TarReader
from registry_spooler.archive.tar_header import Member
from support.images import archives
from support.images.archive_parts import Entry, dumps, hexdigest, make_tar
from support.images.archive_reading import tape_of

MIB = 1 << 20
LAYERS_OF_FOUR_MIB = 30_000
"""Descriptors that fill a manifest of 4 MiB, the most that a registry takes."""


def packed(content: bytes) -> bytes:
    """One gzip member, quickly made."""
    deflater = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    return deflater.compress(content) + deflater.flush()


def zeros(compression: str, size: int) -> bytes:
    """So many zero bytes, compressed; a concatenation of streams of 32 MiB."""
    piece = COMPRESS[compression](bytes(32 * MIB))
    return piece * (size // (32 * MIB))


COMPRESS = {
    "gzip": packed,
    "zstd": zstandard.ZstdCompressor(level=1).compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def header(name: str, size: int = 0, *, kind: bytes = b"0") -> bytes:
    """A tar header alone, for data that this one does not have, or has elsewhere."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name: str, content: bytes, *, kind: bytes = b"0") -> bytes:
    """A whole member, without an end marker."""
    return header(name, len(content), kind=kind) + content + bytes(-len(content) % 512)


def layers(count: int, *, seed: int = 0) -> list[dict[str, object]]:
    """Descriptors of layers that nobody has."""
    digests = (hashlib.sha256(f"{seed} {at}".encode()).hexdigest() for at in range(count))
    return [{"mediaType": "t", "digest": f"sha256:{digest}", "size": 1} for digest in digests]


def manifest(count: int, *, seed: int = 0) -> bytes:
    """An image manifest with so many layers, and no config."""
    return dumps({"schemaVersion": 2, "mediaType": archives.MANIFEST, "layers": layers(count, seed=seed)})


def layout_of(entries: list[dict[str, object]], *blobs: bytes) -> bytes:
    """An OCI layout with this index and these manifests."""
    members: list[Entry] = [(f"blobs/sha256/{hexdigest(blob)}", blob) for blob in blobs]
    return make_tar([archives.LAYOUT, *members, ("index.json", archives.oci_index(entries))])


def one_manifest_listed_often(times: int = 1500, count: int = LAYERS_OF_FOUR_MIB) -> bytes:
    """An index inside the layout's own that lists one large manifest again and again."""
    large = manifest(count)
    index = archives.oci_index([archives.descriptor(archives.MANIFEST, large)] * times)
    return layout_of([archives.descriptor(archives.INDEX, index)], large, index)


def indexes_within_indexes(depth: int = 6, width: int = 50) -> bytes:
    """Each index lists the one below it many times: width to the power of depth manifests in all."""
    blobs = [manifest(1)]
    kind = archives.MANIFEST
    for _ in range(depth):
        blobs.append(archives.oci_index([archives.descriptor(kind, blobs[-1])] * width))
        kind = archives.INDEX
    return layout_of([archives.descriptor(kind, blobs[-1])], *blobs)


def one_config_for_many_images(images: int = 9_000, size: int = 4 * MIB) -> bytes:
    """A manifest.json whose images all have one large config."""
    config = dumps({"rootfs": {"diff_ids": []}, "padding": ""})
    config = config[:-2] + b"x" * (size - len(config)) + config[-2:]
    items = [{"Config": "c", "RepoTags": [f"a:{at}"]} for at in range(images)]
    return make_tar([("c", config), ("manifest.json", dumps(items))])


def many_names_for_one_image(names: int = 9_000) -> bytes:
    """An index that lists one manifest under many names."""
    small = manifest(1)
    entries = [
        archives.descriptor(archives.MANIFEST, small, annotations={"org.opencontainers.image.ref.name": f"r/a:{at}"})
        for at in range(names)
    ]
    return layout_of(entries, small)


def many_names_for_one_large_image(names: int = 100, blobs: int = 2_000) -> bytes:
    """As before, with an image of many layers, all of which are there."""
    contents = [b"%d" % at for at in range(blobs)]
    large = dumps(
        {"schemaVersion": 2, "mediaType": archives.MANIFEST}
        | {"layers": [archives.descriptor("t", content) for content in contents]}
    )
    entries = [
        archives.descriptor(archives.MANIFEST, large, annotations={"org.opencontainers.image.ref.name": f"r/a:{at}"})
        for at in range(names)
    ]
    return layout_of(entries, large, *contents)


def many_values(values: int, value: bytes = b"{}") -> bytes:
    """A JSON list of this value, so often."""
    return b"[" + b",".join([value] * values) + b"]"


def with_index(document: bytes, name: str = "index.json") -> bytes:
    """An archive whose index is this document."""
    return make_tar([archives.LAYOUT, (name, document)])


def members_of(archive: bytes) -> list[Member]:
    """The members of a tar, as they are read."""
    reader = TarReader(tape_of(archive))
    return list(iter(reader.next, None))


def joined(parts: Iterable[bytes]) -> bytes:
    """Members, and the end marker."""
    return b"".join([*parts, bytes(1024)])


# ---- tars


def endless_names(members: int = 9_000) -> bytes:
    """Members with names and link names of 4 KiB, each with one character that makes Python take four bytes for all."""
    parts = []
    for at in range(members):
        name = f"{at:06}{'n' * 4080}\U0001f980".encode()
        parts += [member("L", name, kind=b"L"), member("K", name, kind=b"K"), header("n", kind=b"2")]
    return joined(parts)


def deep_folders(members: int = 9_000, depth: int = 2_030) -> bytes:
    """Members so many folders deep."""
    folders = b"d/" * depth
    parts = (member("L", folders + b"%06d" % at, kind=b"L") + header("n") for at in range(members))
    return joined(parts)


def names_that_are_no_text(members: int = 9_000) -> bytes:
    """Names that are no UTF-8, which take four times their length to be told."""
    return joined(member("L", b"\xff" * 4000 + b"%06d" % at, kind=b"L") + header("n") for at in range(members))


def long_names_without_end(headers: int = 100) -> bytes:
    """Extension headers of 1 MiB behind each other, and never a member."""
    return member("L", b"n" * MIB, kind=b"L") * headers


def records_without_end(headers: int = 100) -> bytes:
    """PAX headers full of the shortest records."""
    return member("x", (b"6 a=b\n" * (MIB // 6)), kind=b"x") * headers


def a_sparse_map_without_end(blocks: int = 200_000) -> bytes:
    """An old GNU sparse header whose map goes on and on."""
    head = bytearray(header("s", kind=b"S"))
    head[482], head[148:156] = 1, b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + (bytes(504) + b"\1" + bytes(7)) * blocks


def labels_without_end(size: int) -> bytes:
    """A volume label that claims so much data."""
    return header("label", size, kind=b"V")


def many_indexes(count: int = 40, size: int = 2 * MIB) -> bytes:
    """Documents called index.json, all of which look worth keeping."""
    document = b"[" + b" " * (size - 2) + b"]"
    return joined(member(f"{at}/index.json", document) for at in range(count))


def links_in_a_circle(links: int = 50_000) -> bytes:
    """A chain of symbolic links, through which a config would be found, and a circle of hard links for the index."""
    infos = []
    for at in range(links):
        info = tarfile.TarInfo(f"l{at}")
        info.type, info.linkname = tarfile.SYMTYPE, f"l{(at + 1) % links}"
        infos.append(info.tobuf(tarfile.GNU_FORMAT))
    return joined([*infos, member("manifest.json", dumps([{"Config": "l0", "Layers": []}]))])
