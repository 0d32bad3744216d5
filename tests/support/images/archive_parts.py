"""What archives are made of: layers, configs, images, tars. Small, and the same bytes every time."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import zstandard

from registry_spooler.oci.digest import Digest


@dataclass(frozen=True)
class Symlink:
    target: str


@dataclass(frozen=True)
class Hardlink:
    target: str


class Folder:
    pass


Entry = tuple[str, bytes | Symlink | Hardlink | type[Folder]]


def make_tar(entries: Iterable[Entry], *, style: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of these members, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=style) as tar:
        for path, what in entries:
            info = tarfile.TarInfo(path)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
                continue
            if isinstance(what, Symlink):
                info.type, info.linkname = tarfile.SYMTYPE, what.target
            elif isinstance(what, Hardlink):
                info.type, info.linkname = tarfile.LNKTYPE, what.target
            else:
                info.type = tarfile.DIRTYPE
            tar.addfile(info)
    return out.getvalue()


def read_tar(archive: bytes) -> dict[str, bytes]:
    """The files of a tar, to change some and make it again."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}


def without_end_marker(archive: bytes) -> bytes:
    """The tar as some tools leave it: nothing behind the last member."""
    return archive.rstrip(b"\0") + bytes(-len(archive.rstrip(b"\0")) % 512)


def gz(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


COMPRESSORS = {
    ".tar": bytes,
    ".tgz": gz,
    ".tar.gz": gz,
    ".tar.zst": zst,
    ".tzst": zst,
    ".tar.xz": lzma.compress,
    ".txz": lzma.compress,
    ".tar.bz2": bz2.compress,
    ".tbz2": bz2.compress,
}
"""How each known suffix is made."""


def hexdigest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest(content: bytes) -> Digest:
    return Digest.of(content)


def layer(text: str = "hello", *, path: str = "greeting.txt") -> bytes:
    """A plain layer: a tar with one file."""
    return make_tar([(path, text.encode())])


def big_layer(size: int, *, seed: int = 1) -> bytes:
    """A plain layer of about `size` bytes that compress to half."""
    noise = b"".join(hashlib.sha256(f"{seed} {block}".encode()).digest() + bytes(32) for block in range(size // 64 + 1))
    return make_tar([(f"noise-{seed}", noise[:size])])


def dumps(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Image:
    """What every format below packs: plain layers, lowest first, and the names it goes by."""

    layers: tuple[bytes, ...] = (layer("first"), layer("second"))
    names: tuple[str, ...] = ("registry.example/app:1",)
    platform: str = "linux/amd64"

    @property
    def diff_ids(self) -> list[str]:
        return [f"sha256:{hexdigest(content)}" for content in self.layers]

    @property
    def config(self) -> bytes:
        system, architecture, *variant = self.platform.split("/")
        document = {
            "architecture": architecture,
            "os": system,
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }
        return dumps(document | ({"variant": variant[0]} if variant else {}))
