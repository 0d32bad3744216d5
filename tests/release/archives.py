"""Tar archives that are the same bytes for the same content, whoever makes them."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

_EXECUTABLE = 0o755
_PLAIN = 0o644


def write_tgz(output: Path, files: Mapping[str, Path], epoch: int) -> None:
    """Write a .tar.gz of files under these names, all of one time (seconds) and of nobody."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path in sorted(files.items()):
            executable = path.stat().st_mode & 0o100
            add(tar, name, path.read_bytes(), epoch, _EXECUTABLE if executable else _PLAIN)


def add(tar: tarfile.TarFile, name: str, content: bytes, epoch: int, mode: int = _PLAIN) -> None:
    """Add one file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), epoch, mode
    tar.addfile(entry, io.BytesIO(content))
