"""The floor: the least code that reads, hashes, compresses and posts the same bytes.

Nothing is checked, and nothing tried again.
Run as a program of its own: `floor.py archive FILE HOST REPOSITORY` or `floor.py files FOLDER HOST REQUESTS`.
Plain archives are read by two threads, the largest blob first; within gzip, one thread inflates and one does the rest.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import hashlib
import http.client
import io
import json
import os
import queue
import re
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from isal import igzip, isal_zlib

PIECE_BYTES = 1 << 20
GZIP_LEVEL = 1
"""The product's."""
GZIP_WINDOW_BITS = 31
WORKERS = 2
IS_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
OCTETS = {"Content-Type": "application/octet-stream"}
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
Descriptor = dict[str, object]


class Connection:
    """One connection that is kept open, and the three requests that make a blob."""

    def __init__(self, host: str, repository: str) -> None:
        self._http = http.client.HTTPConnection(host, blocksize=PIECE_BYTES)
        self.repository = repository

    def ask(self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> str:
        """Send one request; returns the Location of the answer."""
        self._http.request(method, url, body, headers or {})
        return self._finish()

    def begin(self) -> str:
        """Start an upload; returns where its bytes go."""
        return self.ask("POST", f"/v2/{self.repository}/blobs/uploads/")

    def put_known(self, pieces: Iterator[bytes], digest: str, size: int) -> None:
        """Send a blob whose digest and size are known in the closing request itself."""
        self._http.putrequest("PUT", f"{self.begin()}&digest=sha256:{digest}")
        self._http.putheader("Content-Type", "application/octet-stream")
        self._http.putheader("Content-Length", str(size))
        self._http.endheaders()
        for piece in pieces:
            self._http.send(piece)
        self._finish()

    def put_unknown(self, pieces: Iterator[bytes]) -> tuple[str, int]:
        """Send a blob that is measured on its way; returns its digest and size."""
        sha, size = hashlib.sha256(), 0
        self._http.putrequest("PATCH", self.begin())
        self._http.putheader("Content-Type", "application/octet-stream")
        self._http.putheader("Transfer-Encoding", "chunked")
        self._http.endheaders()
        for piece in pieces:
            sha.update(piece)
            size += len(piece)
            self._http.send(b"%x\r\n" % len(piece))
            self._http.send(piece)
            self._http.send(b"\r\n")
        self._http.send(b"0\r\n\r\n")
        self.ask("PUT", f"{self._finish()}&digest=sha256:{sha.hexdigest()}", headers=OCTETS)
        return sha.hexdigest(), size

    def put_bytes(self, content: bytes, *, patch: bool = False) -> str:
        """Send a small blob; returns its digest."""
        digest = hashlib.sha256(content).hexdigest()
        where = self.begin()
        if patch:
            where, content = self.ask("PATCH", where, content, OCTETS), b""
        self.ask("PUT", f"{where}&digest=sha256:{digest}", content, OCTETS)
        return digest

    def put_manifest(self, manifest: bytes, tag: str = "latest") -> None:
        self.ask("PUT", f"/v2/{self.repository}/manifests/{tag}", manifest, {"Content-Type": MANIFEST_TYPE})

    def _finish(self) -> str:
        with self._http.getresponse() as response:
            response.read()
            if response.status >= 400 and response.status != 404:
                raise RuntimeError(f"{response.status} {response.reason}")
            location = response.headers.get("Location", "")
        return location[location.find("/v2/") :] if location else ""


def push_archive(path: str, host: str, repository: str) -> None:
    """Push the image of an archive."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    small, layers = (from_stream if packed else from_file)(path, host, repository)
    connection = Connection(host, repository)
    if "oci-layout" in small:
        top = json.loads(small["index.json"])["manifests"][0]["digest"].partition(":")[2]
        connection.put_manifest(small[f"blobs/sha256/{top}"])
        return
    image = json.loads(small["manifest.json"])[0]
    config = small[image["Config"]]
    digest = connection.put_bytes(config)
    chosen = [layers[name] for name in image["Layers"]]
    connection.put_manifest(_manifest(_descriptor("config.v1+json", digest, len(config)), chosen))


def from_file(path: str, host: str, repository: str) -> tuple[dict[str, bytes], dict[str, Descriptor]]:
    """Read by position, two blobs at once."""
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.isreg()]
        descriptor = tar.fileobj.fileno()
        small = {
            m.name: tar.extractfile(m).read() for m in members if m.size < PIECE_BYTES and not m.name.endswith(".tar")
        }
        by_size = sorted(
            (m for m in members if m.name.endswith(".tar") or IS_BLOB.match(m.name)), key=lambda m: -m.size
        )

        mine = threading.local()

        def connect() -> None:
            mine.connection = Connection(host, repository)

        def push(member: tarfile.TarInfo) -> tuple[str, Descriptor]:
            pieces = _preads(descriptor, member.offset_data, member.size)
            return member.name, push_blob(mine.connection, member, pieces)

        with concurrent.futures.ThreadPoolExecutor(WORKERS, initializer=connect) as pool:
            return small, dict(pool.map(push, by_size))


def from_stream(path: str, host: str, repository: str) -> tuple[dict[str, bytes], dict[str, Descriptor]]:
    """Read once, front to back, while another thread inflates ahead."""
    small: dict[str, bytes] = {}
    layers: dict[str, Descriptor] = {}
    connection = Connection(host, repository)
    with igzip.open(path) as plain, tarfile.open(fileobj=Ahead(plain), mode="r|", bufsize=PIECE_BYTES) as tar:
        for member in tar:
            if not member.isreg():
                continue
            content = tar.extractfile(member)
            pieces: Iterator[bytes] = iter(functools.partial(content.read, PIECE_BYTES), b"")
            if member.size < PIECE_BYTES:
                small[member.name] = b"".join(pieces)
                pieces = iter([small[member.name]])
            if member.name.endswith(".tar") or IS_BLOB.match(member.name):
                layers[member.name] = push_blob(connection, member, pieces)
    return small, layers


class Ahead:
    """A file that another thread reads up to four pieces ahead."""

    def __init__(self, file: BinaryIO) -> None:
        self._pieces: queue.Queue[bytes] = queue.Queue(4)
        threading.Thread(target=self._fill, args=(file,), daemon=True).start()

    def read(self, _: int) -> bytes:
        return self._pieces.get()

    def _fill(self, file: BinaryIO) -> None:
        while piece := file.read(PIECE_BYTES):
            self._pieces.put(piece)
        self._pieces.put(b"")


def push_blob(connection: Connection, member: tarfile.TarInfo, pieces: Iterator[bytes]) -> Descriptor:
    """A blob as it is, hashed all the same; or a plain layer, compressed."""
    if known := IS_BLOB.match(member.name):
        connection.put_known(_hashed(pieces), known[1], member.size)
        return {}
    packed = _compressed(_hashed(pieces))
    if member.size < PIECE_BYTES:
        content = b"".join(packed)
        digest, size = connection.put_bytes(content), len(content)
    else:
        digest, size = connection.put_unknown(packed)
    return _descriptor("layer.v1.tar+gzip", digest, size)


def push_files(folder: str, host: str, counts: dict[str, int]) -> None:
    """Each file as an image of its own, with as many requests of each kind as `counts` has for one file."""
    connection = Connection(host, "")
    for name in sorted(os.listdir(folder)):
        connection.repository = name.partition(".")[0]
        push_small(connection, name, Path(folder, name).read_bytes(), collections.Counter(counts))


def push_small(connection: Connection, name: str, content: bytes, counts: collections.Counter[str]) -> None:
    """One file as an image of one layer: two blobs, a manifest, and what is asked before and after."""
    layer, diff_id = _small_layer(name, content)
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]}}).encode()
    base, digests = f"/v2/{connection.repository}", []
    for number, blob in enumerate((layer, config)):
        if number < counts["HEAD blobs"]:
            connection.ask("HEAD", f"{base}/blobs/sha256:{hashlib.sha256(blob).hexdigest()}")
        digests.append(connection.put_bytes(blob, patch=number < counts["PATCH uploads"]))
    parts = [_descriptor("layer.v1.tar+gzip", digests[0], len(layer))]
    connection.put_manifest(_manifest(_descriptor("config.v1+json", digests[1], len(config)), parts))
    for method in ("HEAD", "GET"):
        for _ in range(counts[f"{method} manifests"]):
            connection.ask(method, f"{base}/manifests/latest", headers={"Accept": MANIFEST_TYPE})


def _small_layer(name: str, content: bytes) -> tuple[bytes, str]:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return isal_zlib.compress(plain.getvalue(), GZIP_LEVEL, GZIP_WINDOW_BITS), hashlib.sha256(
        plain.getbuffer()
    ).hexdigest()


def _preads(descriptor: int, offset: int, size: int) -> Iterator[bytes]:
    for start in range(0, size, PIECE_BYTES):
        yield os.pread(descriptor, min(PIECE_BYTES, size - start), offset + start)


def _hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
        yield piece


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    deflate = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW_BITS)
    for piece in pieces:
        if packed := deflate.compress(piece):
            yield packed
    yield deflate.flush()


def _descriptor(kind: str, digest: str, size: int) -> Descriptor:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size}


def _manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
    return json.dumps(manifest).encode()


if __name__ == "__main__":
    work, source, registry, argument = sys.argv[1:]
    if work == "archive":
        push_archive(source, registry, argument)
    else:
        push_files(source, registry, json.loads(argument))
