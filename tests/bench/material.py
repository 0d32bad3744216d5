"""Layers filled with the machine's own files: programs, libraries and texts, as images have them.

Random bytes or zeros would flatter one compressor or another. The files are taken in the order of their paths, each
once, until a layer has its size; when all have been used the walk starts again under another
folder, so that no two layers are alike.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ROOTS = ("/usr/lib", "/usr/bin", "/usr/libexec", "/usr/share", "/usr/include", "/usr/local")
LARGEST_SHARE = 0.5
"""A file takes at most this part of a layer: a layer of one file is no image's."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A plain layer on disk; `digest` is the hexadecimal SHA-256 of its tar, its diff ID."""

    path: Path
    digest: str
    size: int


class Material:
    """An endless supply of layers, each of other files than the one before."""

    def __init__(self, roots: tuple[str, ...] = ROOTS) -> None:
        self._files = _endless(roots)

    def layer(self, path: Path, size_bytes: int) -> Layer:
        """Write a layer of about that size; it is never larger than that by more than a tar's padding."""
        with path.open("wb") as file:
            hashing = _HashingWriter(file)
            with tarfile.open(fileobj=hashing, mode="w|", bufsize=1 << 20, format=tarfile.PAX_FORMAT) as tar:
                self._fill(tar, size_bytes)
        return Layer(path, hashing.digest.hexdigest(), path.stat().st_size)

    def _fill(self, tar: tarfile.TarFile, size_bytes: int) -> None:
        written = 0
        too_large = 0
        while written < size_bytes * 0.99 and too_large < 10_000:
            source, name, size = next(self._files)
            if size > size_bytes * LARGEST_SHARE or written + size > size_bytes:
                too_large += 1
                continue
            written += _add(tar, source, name)


class _HashingWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _add(tar: tarfile.TarFile, source: str, name: str) -> int:
    try:
        file = open(source, "rb")  # noqa: SIM115 - closed below; what cannot be opened is skipped
    except OSError:
        return 0
    with file:
        member = tar.gettarinfo(arcname=name, fileobj=file)
        if not member.isreg():  # a second name of a file that this layer has: tar stores a link
            return 0
        tar.addfile(member, file)
    return member.size + tarfile.BLOCKSIZE


def _endless(roots: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    for turn in itertools.count():
        found = False
        for path, size in _regular_files(roots):
            found = True
            yield path, f"turn{turn}{path}", size
        if not found:
            raise RuntimeError(f"no files to fill layers with under {', '.join(roots)}")


def _regular_files(roots: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode) and status.st_size:
                    yield path, status.st_size
