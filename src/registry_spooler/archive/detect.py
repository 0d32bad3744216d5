"""Telling an image archive from any other file by its content, for files whose names do not say what they are."""

from __future__ import annotations

import re
from typing import Final

from registry_spooler.archive.compression import Compression
from registry_spooler.archive.header import BLOCK_BYTES
from registry_spooler.archive.member import Member
from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.recognition import recognise
from registry_spooler.archive.source import FileSource
from registry_spooler.archive.streamed import StreamedArchive
from registry_spooler.archive.tape import FileTape
from registry_spooler.archive.tar import TarReader
from registry_spooler.errors import ArchiveError
from registry_spooler.threads import in_thread, in_worker

_OF_IMAGES: Final = re.compile(
    r"(?:[^/]+/)?(?:oci-layout|blobs/sha256/[0-9a-f]{64})"
    r"|(?:sha256:)?[0-9a-f]{64}(?:\.json|\.tar|\.tar\.gz|/json|/layer\.tar)?"
)
"""Members that only image archives have: of an OCI layout, which may lie in a folder, and of docker archives."""
_MANIFEST: Final = "manifest.json"
_HEAD_BYTES: Final = 512
_MEMBERS_PER_STEP: Final = 1024
"""How many headers are read before a cancellation gets its chance."""


async def is_image_archive(source: FileSource) -> bool:
    """Return whether a file is an image archive, be it a whole one or not.

    Of a plain tar the headers are read up to the first member that tells, of a compressed one the content. OSError
    when the file cannot be read.
    """
    try:
        if await in_thread(_compression, source) is Compression.NONE:
            reader = TarReader(FileTape(source))
            while (found := await in_worker(_look_on, source, reader)) is None:
                pass
            return found
        async with open_archive(source) as archive:
            assert isinstance(archive, StreamedArchive)
            async for member in archive:
                if _tells(member, archive.head):
                    return True
    except ArchiveError:
        pass
    return False


def _compression(source: FileSource) -> Compression:
    return recognise(source.read_at(0, BLOCK_BYTES))


def _look_on(source: FileSource, reader: TarReader) -> bool | None:
    """Look at some members; None when there are more."""
    for _ in range(_MEMBERS_PER_STEP):
        if (member := reader.next()) is None:
            return False
        if _tells(member, source.read_at(member.offset, _HEAD_BYTES) if member.path == _MANIFEST else b""):
            return True
    return None


def _tells(member: Member, head: bytes) -> bool:
    if member.path == _MANIFEST:
        return head.lstrip().startswith(b"[") and (b'"Config"' in head or b'"Layers"' in head)
    return _OF_IMAGES.fullmatch(member.path) is not None
