"""What earlier pushes found out, so that a later one need not read or compress again.

Two things are remembered: the digest that a plain layer got when it was compressed (on disk, one small file per diff ID
and compression, written by rename, so that spoolers may share the directory), and a repository that held a blob (in
memory, for mounts). Both are only hints: the registry is asked before one is used.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from registry_spooler.aio import in_thread
from registry_spooler.folder import Folder
from registry_spooler.oci.digest import Digest

LAYERS_MAX: Final = 20_000
"""Entries kept on disk, of about 200 bytes each; the oldest go at the next start."""
_ENTRY: Final = re.compile(r"[a-z0-9]+-[0-9a-f]+\.[a-z]+\.json|\.new-[0-9A-Za-z_]+")
"""Files with other names are left alone."""
_ENTRY_MAX_BYTES: Final = 64 << 10
BLOBS_MAX: Final = 20_000
"""Blobs whose repository is remembered in memory, of about 300 bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLayer:
    """The blob that a plain layer was compressed to. `size` is in bytes."""

    digest: Digest
    size: int
    repository: str
    """Where it can be mounted from."""


class KnownBlobs:
    """The memory of earlier pushes. Without a `directory` it lasts as long as the process."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._repositories: OrderedDict[Digest, str] = OrderedDict()
        self._layers: OrderedDict[str, KnownLayer] = OrderedDict()

    def repository(self, digest: Digest) -> str | None:
        """Return a repository that held this blob when it was last seen."""
        return self._repositories.get(digest)

    def seen(self, digest: Digest, repository: str) -> None:
        """Remember that `repository` holds the blob."""
        self._repositories[digest] = repository
        self._repositories.move_to_end(digest)
        if len(self._repositories) > BLOBS_MAX:
            self._repositories.popitem(last=False)

    async def layer(self, diff_id: Digest, compression: str) -> KnownLayer | None:
        """Return the blob that the layer was compressed to, or None if that is not known."""
        key = _key(diff_id, compression)
        if key not in self._layers and self._directory is not None:
            found = await in_thread(_read, self._directory, key)
            if found is not None:
                self._layers[key] = found
        return self._layers.get(key)

    async def remember_layer(self, diff_id: Digest, compression: str, layer: KnownLayer) -> None:
        """Remember the blob for later pushes and processes. An error of the disk does not fail the push."""
        key = _key(diff_id, compression)
        if self._layers.get(key) == layer:
            return
        self._layers[key] = layer
        if len(self._layers) > LAYERS_MAX:
            self._layers.popitem(last=False)
        if self._directory is not None:
            with contextlib.suppress(OSError):
                await in_thread(_write, self._directory, key, layer)

    async def trim(self) -> None:
        """Remove the oldest entries on disk beyond `LAYERS_MAX`, and what a killed process left half-written."""
        if self._directory is not None:
            with contextlib.suppress(OSError):
                await in_thread(_trim, self._directory)


def cache_directory() -> Path:
    """Where this user's programs keep what they can do without, for this project."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "registry-spooler"


def _key(diff_id: Digest, compression: str) -> str:
    return f"{diff_id.algorithm}-{diff_id.hex}.{compression}.json"


def _open(directory: Path, *, make: bool = False) -> Folder:
    """Open the directory, whose last two names are our own; NotAFolder when a link or anything else is there."""
    if make:
        directory.parent.parent.mkdir(parents=True, exist_ok=True)
    with Folder.open(directory.parent.parent) as above, above.subfolder(directory.parent.name, make=make) as folder:
        return folder.subfolder(directory.name, make=make)


def _read(directory: Path, key: str) -> KnownLayer | None:
    try:
        with _open(directory) as folder:
            document = orjson.loads(folder.read(key, _ENTRY_MAX_BYTES))
        return KnownLayer(
            digest=Digest.parse(document["digest"]), size=int(document["size"]), repository=str(document["repository"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        # Absent, unreadable or of another version: the layer is compressed once more, and the entry written anew.
        return None


def _write(directory: Path, key: str, layer: KnownLayer) -> None:
    content = orjson.dumps({"digest": str(layer.digest), "size": layer.size, "repository": layer.repository})
    temporary = f".new-{secrets.token_hex(8)}"
    with _open(directory, make=True) as folder:
        folder.create(temporary, content, durable=False)
        try:
            folder.rename(temporary, folder, key)
        except OSError:
            folder.remove(temporary, missing_ok=True)
            raise


def _trim(directory: Path) -> None:
    with _open(directory) as folder:
        names = [name for name in folder.names() if _ENTRY.fullmatch(name)]
        found = sorted(((folder.status(name).st_mtime, name) for name in names), reverse=True)
        for place, (_, name) in enumerate(found):
            if place >= LAYERS_MAX or name.startswith(".new-"):
                folder.remove(name, missing_ok=True)
