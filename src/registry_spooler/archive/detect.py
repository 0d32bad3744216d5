"""What a source is, told by its content and not by its name."""

from __future__ import annotations

from typing import Final

from registry_spooler.archive.compression import Compression, sniff
from registry_spooler.archive.contents import Contents
from registry_spooler.archive.tar_header import BLOCK_BYTES, ZERO_BLOCK, has_checksum
from registry_spooler.errors import ArchiveError, ArchiveTruncated

AS_FILE: Final = "to push the file as it is, give it a name without an archive suffix"

_HEADS: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x04\x22\x4d\x18", "lz4 data, which is not read here (gzip, zstd, xz and bzip2 are)"),
    (b"LZIP", "lzip data, which is not read here (gzip, zstd, xz and bzip2 are)"),
    (b"\x5d\x00\x00", "lzma data, which is not read here (gzip, zstd, xz and bzip2 are)"),
    (b"\x1f\x9d", "data of compress, which is not read here (gzip, zstd, xz and bzip2 are)"),
    (b"hsqs", "a squashfs image"),
    (b"\x7fELF", "a program"),
    (b"!<arch>\n", "an ar archive (a Debian package?)"),
    (b"0707", "a cpio archive"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"QFI\xfb", "a disk image"),
)
_ROOT_FOLDERS: Final = frozenset({"bin", "etc", "lib", "usr", "var", "sbin", "root"})
_NAMES_LISTED: Final = 5


def is_known(head: bytes) -> bool:
    """Return whether it is the beginning of something that is known not to be a tar."""
    return head.startswith(tuple(magic for magic, _ in _HEADS))


def describe_head(head: bytes) -> str:
    """Return what bytes are that begin neither a tar nor compressed data; a sentence."""
    for magic, what in _HEADS:
        if head.startswith(magic):
            return f"it is no tar archive but {what}; {AS_FILE}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "it is no tar archive but a web page (did a download answer with an error?)"
    if text.startswith((b"{", b"[")):
        return f"it is no tar archive but looks like JSON; {AS_FILE}"
    if text.startswith(b"#!"):
        return f"it is no tar archive but a script; {AS_FILE}"
    return f"it is no tar archive; {AS_FILE}"


def describe_contents(contents: Contents) -> str:
    """Return what a tar is that holds no image; a sentence."""
    paths = [member.path for member in contents]
    top = {path.partition("/")[0] for path in paths}
    if any(path == "repositories" or path.endswith("/repositories") for path in paths):
        return "it was written by a docker before 1.10 and has no manifest.json; load it into docker and save it again"
    if any(path.count("/") == 1 and path.endswith("/Chart.yaml") for path in paths):
        return f"it is a Helm chart, not an image archive; push it with `helm push`, or {AS_FILE}"
    if len(top & _ROOT_FOLDERS) >= 3:
        return (
            "it is the tree of a root file system, not an image archive; make an image of it first (`docker import`, "
            "`podman import`)"
        )
    if any(path.rpartition("/")[2] in ("oci-layout", "index.json", "manifest.json") for path in paths):
        return (
            "it has no index of images at its top, nor in the one folder that all its files share; pack the image's "
            "folder alone"
        )
    if any("/.wh." in f"/{path}" for path in paths) or paths == ["layer.tar"]:
        return "it is a single layer, not an image archive: manifest.json or index.json is missing"
    listed = ", ".join(sorted(top)[:_NAMES_LISTED])[:200] + (", …" if len(top) > _NAMES_LISTED else "")
    return (
        f"it is a tar archive, but not of an image: manifest.json or index.json is missing (it holds {listed}); "
        f"{AS_FILE}"
    )


def recognise(head: bytes) -> Compression:
    """Return how an archive is compressed, from its first BLOCK_BYTES; ArchiveError when it is none."""
    compression = sniff(head)
    if compression is Compression.NONE:
        check_tar(head, describe_head(head))
    return compression


def check_inside(head: bytes, compression: Compression) -> None:
    """Check the first BLOCK_BYTES of decompressed data; ArchiveError when they begin no tar."""
    what = f"the {compression.value} data in it"
    if (again := sniff(head)) is not Compression.NONE:
        raise ArchiveError(f"{what} holds compressed data again ({again.value}); compress the tar archive once")
    check_tar(head, f"{what} holds something else than a tar archive; {AS_FILE}", what=what)


def check_tar(head: bytes, otherwise: str, *, what: str = "it") -> None:
    """Raise ArchiveError unless it is the first block of a tar. Zeros are one that holds nothing."""
    if not head:
        raise ArchiveTruncated(f"{what} is empty")
    if len(head) == BLOCK_BYTES and (head == ZERO_BLOCK or has_checksum(head)):
        return
    if len(head) < BLOCK_BYTES and not is_known(head):
        raise ArchiveTruncated(f"{what} ends after {len(head)} bytes, too few for a tar archive")
    raise ArchiveError(otherwise)
