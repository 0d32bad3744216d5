"""A fresh docker-registry for every run: what one run stored must not help the next.

Its storage is a folder in the place for temporary files, so a tag's appearance is seen with a `stat`, which costs the
measured programs nothing; its log tells how many requests of which kind it took. It syncs every blob to the disk:
`TMPDIR=/dev/shm` takes the disk out of the figures.
"""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = "docker-registry"
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 10.0
_LISTENING = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")
_ANSWERED = re.compile(r'msg="response completed.* http\.request\.method=(\w+) .* http\.request\.uri="?([^"\s]+)')


class Registry:
    """One registry process and its storage, both gone at the end of the block."""

    def __init__(self) -> None:
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.host = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="bench-registry-"))
        configuration = {
            "version": 0.1,
            "log": {"level": "info", "formatter": "text", "accesslog": {"disabled": True}},
            "storage": {
                "delete": {"enabled": True},
                "filesystem": {"rootdirectory": str(self._folder / "storage")},
            },
            "http": {"addr": "127.0.0.1:0", "secret": "only-for-the-bench"},
        }
        path = self._folder / "config.json"
        path.write_text(json.dumps(configuration))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            )
        self.host = f"127.0.0.1:{self._port()}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def has_tag(self, repository: str, tag: str) -> bool:
        """Does the registry answer for that tag? Read from its storage, so nobody is disturbed."""
        return (self._root / "repositories" / repository / "_manifests/tags" / tag / "current/link").exists()

    def absent(self, images: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the (repository, tag) pairs that are not there yet."""
        return [image for image in images if not self.has_tag(*image)]

    def stored_bytes(self) -> int:
        """The bytes of all blobs, manifests included."""
        return sum(path.stat().st_size for path in (self._root / "blobs").rglob("data"))

    def requests(self) -> collections.Counter[str]:
        """Answered requests by kind: `HEAD blobs`, `POST uploads`, `PUT manifests` and so on."""
        counts: collections.Counter[str] = collections.Counter()
        for line in self._log.read_text(errors="replace").splitlines():
            if match := _ANSWERED.search(line):
                counts[f"{match[1]} {_kind(match[2])}"] += 1
        return counts

    @property
    def _log(self) -> Path:
        return self._folder / "registry.log"

    @property
    def _root(self) -> Path:
        return self._folder / "storage/docker/registry/v2"

    def _port(self) -> int:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if match := _LISTENING.search(self._log.read_bytes()):
                return int(match[1])
            time.sleep(0.005)
        raise RuntimeError(f"{PROGRAM} did not start: {self._log.read_text()[-1000:]}")


def _kind(uri: str) -> str:
    path, _, query = uri.partition("?")
    if "/blobs/uploads/" in path:
        return "mounts" if "mount=" in query else "uploads"
    for kind in ("blobs", "manifests", "tags", "_catalog"):
        if f"/{kind}" in path:
            return kind
    return "/v2/"
