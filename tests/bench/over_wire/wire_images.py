"""Images to send: layers of the machine's own files, made once and kept; an archive of fresh content for every run.

Each run's layers get a first file that no other run's have, so that nobody finds on the far end what another has
sent, and no registry has to be emptied.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
import sysconfig
import tarfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

from bench.archives import MIB, write_docker_archive
from bench.material import Layer, Material

VERSION = 1
"""Raised when layers change, so that old ones in the cache are not taken for new ones."""
PROGRAM = Path("/usr/bin/catatonit")
"""Linked statically; with -P it waits to be ended."""
OLD, NEW = 1_700_000_000, 1_700_090_000
"""When a layer was built, and built again."""
BUMPS = 3
FILES_BUMPED = 2
"""Modules of each package that its new version has changed."""
LARGEST_MIB = 16
"""Files of more are left out of the packages' layer: compiled programs that no image has twice."""


class LayerShelf:
    """The kept layers: plain tars."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder / f"wire-v{VERSION}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tell = tell

    def plain(self, count: int, size_bytes: int) -> list[Path]:
        """Layers of system files, no two alike."""
        paths = [self._folder / f"{size_bytes / MIB:g}M-{number}.tar" for number in range(count)]
        if not all(path.exists() for path in paths):
            self._tell(f"making {count} layers of {size_bytes / MIB:g} MiB")
            material = Material()
            for path in paths:
                material.layer(_part(path), size_bytes)
                _part(path).rename(path)
        return paths

    def one_file_changed(self, size_bytes: int) -> tuple[Path, Path]:
        """A layer, and the same with one of its files changed."""
        (before,) = self.plain(1, size_bytes)
        after = before.with_name(f"{size_bytes / MIB:g}M-changed.tar")
        if not after.exists():
            _change_one_file(before, _part(after))
            _part(after).rename(after)
        return before, after

    def packages(self, limit_bytes: int) -> tuple[Path, Path]:
        """A layer of Python packages, compiled, and the same installed anew with new versions of three of them."""
        before, after = (self._folder / f"packages-{limit_bytes // MIB}M-{name}.tar" for name in ("before", "after"))
        if not (before.exists() and after.exists()):
            self._tell("making two layers of Python packages")
            tree = self._folder / "packages.part"
            shutil.rmtree(tree, ignore_errors=True)
            _copy_packages(tree, limit_bytes)
            _install(tree, before, OLD)
            _bump(tree)
            _install(tree, after, NEW)
            shutil.rmtree(tree)
        return before, after


def write_program(path: Path, content: bytes) -> Path:
    """Write the layer at the top of an image that can run: a program, and a file beside it."""
    with tarfile.open(path, "w") as tar:
        tar.add(PROGRAM, "pause")
        _add(tar, "data", content)
    return path


def write_archive(path: Path, layers: Sequence[Path], run: str) -> Path:
    """Write an image as `podman save` does, of layers that only this run has."""
    scratch = path.with_name(f"{path.name}.layers")
    scratch.mkdir()
    write_docker_archive(path, [_of_this_run(layer, scratch / str(at), run) for at, layer in enumerate(layers)])
    shutil.rmtree(scratch)
    return path


def _of_this_run(source: Path, target: Path, run: str) -> Layer:
    first = BytesIO()
    with tarfile.open(fileobj=first, mode="w") as tar:
        _add(tar, "run", run.encode())
    with target.open("wb") as file, source.open("rb") as rest:
        file.write(first.getvalue()[: 2 * tarfile.BLOCKSIZE])  # without what ends a tar
        shutil.copyfileobj(rest, file, MIB)
    with target.open("rb") as file:
        return Layer(target, hashlib.file_digest(file, "sha256").hexdigest(), target.stat().st_size)


def _change_one_file(before: Path, after: Path) -> None:
    with tarfile.open(before) as old, tarfile.open(after, "w", format=tarfile.PAX_FORMAT) as new:
        members = old.getmembers()
        changed = next(member for member in members[len(members) // 2 :] if 100_000 < member.size < 300_000)
        for member in members:
            content = old.extractfile(member)
            if member is not changed or content is None:
                new.addfile(member, content)
                continue
            member.mtime = NEW
            new.addfile(member, BytesIO(os.urandom(member.size // 2).hex().encode().ljust(member.size)))


def _copy_packages(tree: Path, limit_bytes: int) -> None:
    """Copy what is installed beside this program, whole packages at a time, up to a size."""
    source = Path(sysconfig.get_paths()["purelib"])
    copied = 0
    for entry in sorted(source.iterdir()):
        files = [path for path in entry.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        size = sum(path.stat().st_size for path in files)
        if (
            not entry.is_dir()
            or copied + size > limit_bytes
            or any(f.stat().st_size > LARGEST_MIB * MIB for f in files)
        ):
            continue
        shutil.copytree(entry, tree / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        copied += size


def _bump(tree: Path) -> None:
    """Make the next versions of some packages: another version, and a few lines that have changed."""
    bumped = 0
    for information in sorted(tree.glob("*.dist-info")):
        name, _, version = information.name.removesuffix(".dist-info").rpartition("-")
        modules = sorted((tree / name).glob("*.py"), key=lambda path: path.stat().st_size)[-FILES_BUMPED:]
        if len(modules) < FILES_BUMPED or bumped == BUMPS:
            continue
        for module in modules:
            with module.open("a") as file:
                file.write(f"\n\ndef of_the_next_version() -> str:\n    return {f'{version}.post1'!r}\n")
        for file_name in ("METADATA", "RECORD"):
            text = (information / file_name).read_text()
            (information / file_name).write_text(text.replace(version, f"{version}.post1"))
        information.rename(tree / f"{name}-{version}.post1.dist-info")
        bumped += 1
    assert bumped == BUMPS, f"only {bumped} packages to bump in {tree}"


def _install(tree: Path, layer: Path, time: int) -> None:
    """Compile the modules, give every file one time, and pack them."""
    for path in tree.rglob("*"):
        os.utime(path, (time, time))
    compileall.compile_dir(tree, quiet=2, force=True, stripdir=str(tree), maxlevels=20)
    with tarfile.open(_part(layer), "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            member = tar.gettarinfo(path, f"usr/lib/python3/site-packages/{path.relative_to(tree)}")
            member.mtime = time
            if member.isreg():
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
    _part(layer).rename(layer)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
