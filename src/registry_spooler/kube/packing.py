"""Thin archives, as they go over the wire: a tar whose every byte's position is known before the first is sent.

An OCI layout in a tar (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) may hold only some
of its image's blobs; the rest is in the registry already. The length of the whole is known beforehand, so a channel
that cannot end standard input can be told it.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from registry_spooler import mediatype
from registry_spooler.digest import Digest
from registry_spooler.kube.remote import Input
from registry_spooler.manifest import Manifest

if TYPE_CHECKING:
    from typing_extensions import Buffer

_END: Final = bytes(2 * tarfile.BLOCKSIZE)
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the archive; `open_pieces` gives its `size` bytes, as often as it is called."""

    path: str
    size: int
    open_pieces: Callable[[], AsyncGenerator[Buffer]]

    @property
    def header(self) -> bytes:
        """What stands before it in the tar; the same for the same part."""
        information = tarfile.TarInfo(self.path)
        information.size = self.size
        information.mode = 0o644
        # Octal up to 8 GiB and binary beyond: what every reader of tars understands.
        return information.tobuf(tarfile.GNU_FORMAT)

    @property
    def padding(self) -> bytes:
        """What fills the last block."""
        return bytes(-self.size % tarfile.BLOCKSIZE)


def content_part(path: str, content: bytes) -> Part:
    """A file whose content is at hand."""
    return Part(path, len(content), lambda: _one(content))


def blob_path(digest: Digest) -> str:
    """Where an OCI layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def pack(parts: Sequence[Part]) -> Input:
    """The tar of these files, in their order."""
    size = sum(len(part.header) + part.size + len(part.padding) for part in parts) + len(_END)
    return Input(size, _pieces(parts))


def image_parts(
    root: Manifest,
    tag: str,
    *,
    manifests: Collection[Manifest],
    companions: Mapping[str, Manifest],
    blobs: Iterable[Part],
) -> list[Part]:
    """An OCI layout whose one image is `root`: the index first, so that the reader knows what comes.

    `companions` speak of it, or of its parts, and go to the tags that they are given by.
    """
    speaking = [manifest for manifest in manifests if manifest.subject is not None]
    entries = [
        _entry(root, tag),
        *map(_entry, speaking),
        *(_entry(manifest, name) for name, manifest in companions.items()),
    ]
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries}
    contents = {manifest.digest: manifest.content for manifest in (root, *manifests, *companions.values())}
    return [
        content_part("oci-layout", _LAYOUT),
        content_part("index.json", orjson.dumps(index)),
        *(content_part(blob_path(digest), content) for digest, content in contents.items()),
        *blobs,
    ]


def _entry(manifest: Manifest, tag: str = "") -> dict[str, Any]:
    named = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
    return manifest.descriptor().to_json() | named


async def _pieces(parts: Sequence[Part]) -> AsyncGenerator[Buffer]:
    for part in parts:
        yield part.header
        sent = 0
        async with aclosing(part.open_pieces()) as pieces:
            async for piece in pieces:
                sent += memoryview(piece).nbytes
                yield piece
        if sent != part.size:
            raise RuntimeError(f"{part.path} has {sent} bytes and was announced with {part.size}")
        yield part.padding
    yield _END


async def _one(content: bytes) -> AsyncGenerator[Buffer]:
    yield content
