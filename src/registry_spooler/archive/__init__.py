"""Reading image archives: one pass, constant memory, everything verified.

Flow: `open_archive` recognises what a source holds. A plain tar in a regular file becomes an
`IndexedArchive`, whose members are read in any order, side by side; all else (compressed, or a pipe) a
`StreamedArchive`, whose members come by once. Both tell their `images`, and both turn a member into a
blob: bytes as they go over the wire, hashed, compressed when asked to, and checked.

The core is plain code that a test can feed with bytes; `indexed`, `streamed` and `reader` are the rim that
takes it into threads.
"""

from __future__ import annotations

from registry_spooler.archive.compression import Compression, sniff
from registry_spooler.archive.detect import is_image_archive
from registry_spooler.archive.image import ArchiveImage, DockerImage, DockerLayer, Names, OciImage, Referrer
from registry_spooler.archive.indexed import IndexedArchive
from registry_spooler.archive.measure import Expectation
from registry_spooler.archive.member import Kind, Member
from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.reader import MemberOpener, MemberReader, file_blob
from registry_spooler.archive.selection import layer_compression, select_image
from registry_spooler.archive.source import FileSource, PipeSource, Source
from registry_spooler.archive.streamed import StreamedArchive

__all__ = [
    "ArchiveImage",
    "Compression",
    "DockerImage",
    "DockerLayer",
    "Expectation",
    "FileSource",
    "IndexedArchive",
    "Kind",
    "Member",
    "MemberOpener",
    "MemberReader",
    "Names",
    "OciImage",
    "PipeSource",
    "Referrer",
    "Source",
    "StreamedArchive",
    "file_blob",
    "is_image_archive",
    "layer_compression",
    "open_archive",
    "select_image",
    "sniff",
]
