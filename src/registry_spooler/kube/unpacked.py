"""The file that an image was made from, read out of a pulled OCI archive that has been checked already."""

from __future__ import annotations

import tarfile
from typing import IO, BinaryIO, Final

from registry_spooler import mediatype
from registry_spooler.kube.tarstream import NotAsPulled
from registry_spooler.manifest import Descriptor, Manifest
from registry_spooler.pull.platform import Candidate, choose
from registry_spooler.pull.unpack import PIECE_BYTES, Unpacking, Writes, compression_of, only_diff_id, only_layer
from registry_spooler.reference import Reference
from registry_spooler.threads import in_thread

_INDEX: Final = "index.json"


async def unpack(archive: BinaryIO, reference: Reference, output: Writes) -> None:
    """Write the file to `output`, decompressed and checked against its diff ID.

    NotOneFile when the image has several layers, PlatformNotFound, WrongContent, ArchiveError.
    """
    await in_thread(archive.seek, 0)
    with await in_thread(_open, archive) as tar:
        manifest = await in_thread(_image, tar, reference)
        layer = only_layer(reference, manifest)
        config = manifest.config
        is_image = config is not None and config.media_type in mediatype.IMAGE_CONFIGS
        diff_id = only_diff_id(await in_thread(_document, tar, _path(config))) if is_image and config else None
        unpacking = Unpacking(reference, output, compression_of(layer, diff_id), diff_id)
        with _member(tar, _path(layer)) as blob:
            while piece := await in_thread(blob.read, PIECE_BYTES):
                await unpacking.write(piece)
        unpacking.finish()


def _open(archive: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=archive, mode="r:")


def _image(tar: tarfile.TarFile, reference: Reference) -> Manifest:
    index = Manifest.parse(_document(tar, _INDEX), media_type=mediatype.OCI_INDEX, where=_INDEX)
    root = _manifest(tar, index.manifests[0])
    if not root.is_index:
        return root
    names = set(tar.getnames())
    candidates = [
        Candidate(child.platform, child)
        for child in root.manifests
        if child.is_manifest and not child.is_attestation and _path(child) in names
    ]
    return _manifest(tar, choose(str(reference), candidates, None).descriptor)


def _manifest(tar: tarfile.TarFile, descriptor: Descriptor) -> Manifest:
    content = _document(tar, _path(descriptor))
    return Manifest.parse(content, media_type=descriptor.media_type, where=str(descriptor.digest))


def _document(tar: tarfile.TarFile, path: str) -> bytes:
    with _member(tar, path) as file:
        return file.read()


def _member(tar: tarfile.TarFile, path: str) -> IO[bytes]:
    try:
        file = tar.extractfile(path)
    except KeyError:
        file = None
    if file is None:
        raise NotAsPulled(f"{path} is missing")
    return file


def _path(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"
