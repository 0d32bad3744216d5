"""The demonstration: a real registry, the spooler on ./spool, an image archive and a text file moved into it.

It does what a user does (write `NAME~`, rename it to NAME), then looks at what the registry holds with nothing but
HTTP. `--once` stops after that; its exit code says whether all was well.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from registry_spooler.text import size_text
from support.registries.running_registry import RegistryOptions, RunningRegistry

ROOT = Path(__file__).resolve().parent.parent
TEXT_NAME = "hello.txt"
TEXT = b"Hello from the registry.\n"
LIBRARY = Path(sysconfig.get_path("stdlib"))
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ARCHIVE_NAME = rf"demo\python:{VERSION}.tar"
REPOSITORIES = {ARCHIVE_NAME: ("demo/python", VERSION), TEXT_NAME: ("hello", "latest")}
PUSH_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

BOLD, GREEN, RED, DIM = "1", "32", "31", "2"


class DemoFailed(Exception):
    """What was promised did not happen; the text says what."""


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(prog="./dev demo", description="A registry and a spooler to play with.")
    parser.add_argument("--once", action="store_true", help="check the result and stop")
    parser.add_argument("--spool", type=Path, default=ROOT / "spool", help="the spool directory (default: ./spool)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _demonstrate(options.spool.resolve(), once=options.once)
    except DemoFailed as exc:
        say(f"✗ {exc}", RED)
        return 1
    except KeyboardInterrupt:
        say("\nStopped.")
    return 0


def _demonstrate(spool: Path, *, once: bool) -> None:
    spool.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="registry-demo-") as folder, _registry(Path(folder)) as registry:
        say(f"A registry listens at {registry.url}", BOLD)
        health_port = free_port(8086)
        with _spooler(spool, registry, health_port) as spooler:
            say(f"The spooler watches {_short(spool)} and shows its status at http://127.0.0.1:{health_port}/", BOLD)
            say("")
            contents = {TEXT_NAME: TEXT, ARCHIVE_NAME: python_image()}
            started = time.time()
            for name, content in contents.items():
                drop(spool, name, content)
            receipts = [_receipt(spool, name, spooler, started) for name in contents]
            say("")
            say("What the spooler says it did (the receipts):", BOLD)
            for receipt in receipts:
                say(f"  {receipt_line(receipt)}")
            say("")
            say("What the registry says:", BOLD)
            for receipt in receipts:
                say(f"  {check(registry.url, receipt)}", GREEN)
            if not once:
                _stay(spool, registry, spooler)


def drop(spool: Path, name: str, content: bytes) -> None:
    """Put a file into the spool as everybody should: under a name that ends in `~`, then by a rename."""
    writing = spool / f"{name}~"
    writing.write_bytes(content)
    writing.rename(spool / name)
    say(f"$ mv '{_short(writing)}' '{_short(spool / name)}'", DIM)


def python_image() -> bytes:
    """A docker archive of this machine's Python: one layer with its library, one with a program."""
    layers = [python_layer(), _layer(Path(__file__), "usr/src/demo.py")]
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Cmd": ["python3", "/usr/src/demo.py"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created_by": f"copy of {LIBRARY}"}, {"created_by": "copy of demo.py"}],
    }
    names = [f"layer-{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [f"demo/python:{VERSION}"], "Layers": names}]
    members = dict(zip(names, layers, strict=True))
    members |= {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    return _tar(members)


def python_layer() -> bytes:
    """A layer with the library of this machine's Python."""
    return _layer(LIBRARY, f"usr/lib/python{VERSION}")


def receipt_line(receipt: dict[str, Any]) -> str:
    """One receipt in one line."""
    blobs = receipt["blobs"]
    return (
        f"{receipt['file']}  →  {receipt['reference']}  {receipt['digest'][:19]}…  "
        f"{size_text(receipt['size_bytes'])}, {blobs['uploaded']} blobs sent, {blobs['existing']} there already, "
        f"{receipt['seconds']:.2f} s"
    )


def check(url: str, receipt: dict[str, Any]) -> str:
    """Compare the registry's own answers with a receipt, and with what was dropped; DemoFailed when they differ."""
    repository, tag = REPOSITORIES[receipt["file"]]
    tags = json.loads(_get(f"{url}/v2/{repository}/tags/list"))["tags"]
    if tag not in tags:
        raise DemoFailed(f"{repository} has no tag {tag}, only {tags}")
    manifest = _get(f"{url}/v2/{repository}/manifests/{tag}")
    if (digest := f"sha256:{hashlib.sha256(manifest).hexdigest()}") != receipt["digest"]:
        raise DemoFailed(f"{repository}:{tag} has the digest {digest}, not {receipt['digest']}")
    layers = [layer["digest"] for layer in json.loads(manifest)["layers"]]
    contents = [gzip.decompress(_get(f"{url}/v2/{repository}/blobs/{layer}")) for layer in layers]
    if receipt["file"] == TEXT_NAME and contents != [TEXT]:
        raise DemoFailed(f"{repository}:{tag} does not hold the bytes of {TEXT_NAME}")
    what = f"says “{TEXT.decode().strip()}”" if contents == [TEXT] else f"{len(layers)} layers, read back and unpacked"
    return f"✓ {repository}:{tag}  {digest[:19]}…  {what}"


def say(text: str, style: str = "") -> None:
    """Print for a person, with colour only where a terminal shows it."""
    coloured = style and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[{style}m{text}\033[0m" if coloured else text, flush=True)


@contextlib.contextmanager
def _registry(folder: Path) -> Iterator[RunningRegistry]:
    registry = RunningRegistry(folder, RegistryOptions(), port=free_port(5000))
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


@contextlib.contextmanager
def _spooler(spool: Path, registry: RunningRegistry, health_port: int) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which("registry-spooler", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise DemoFailed("the program registry-spooler is not installed here")
    command = [program, "--directory", str(spool), "--registry", registry.url, "--health-port", str(health_port)]
    # A group of its own: Ctrl-C in the terminal is for us, and we then stop the spooler in its own good time.
    process = subprocess.Popen([*command, "--health-address", "127.0.0.1"], start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _receipt(spool: Path, name: str, spooler: subprocess.Popen[bytes], started: float) -> dict[str, Any]:
    """Wait for the outcome of a file that was dropped after `started`; older records are of earlier demonstrations."""
    receipt, failure = spool / ".receipts" / f"{name}.json", spool / ".failed" / f"{name}.error.json"
    deadline = time.monotonic() + PUSH_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if _is_newer(receipt, started) and not (spool / name).exists():
            return dict(json.loads(receipt.read_bytes()))
        if _is_newer(failure, started):
            raise DemoFailed(f"{name} failed: {json.loads(failure.read_bytes())['error']}")
        if spooler.poll() is not None:
            raise DemoFailed(f"the spooler ended with exit code {spooler.returncode}")
        time.sleep(0.05)
    raise DemoFailed(f"{name} was not pushed within {PUSH_TIMEOUT_SECONDS:.0f} seconds")


def _is_newer(path: Path, started: float) -> bool:
    try:
        return path.stat().st_mtime >= started - 0.1  # the clock of a file system is coarse
    except FileNotFoundError:
        return False


def _stay(spool: Path, registry: RunningRegistry, spooler: subprocess.Popen[bytes]) -> None:
    place = _short(spool)
    say("")
    say("Now it is your turn, in another terminal:", BOLD)
    for what, command in (
        ("push any file, as mine:v1", f"cp FILE '{place}/mine:v1~' && mv '{place}/mine:v1~' '{place}/mine:v1'"),
        ("push an image", f"podman save IMAGE -o '{place}/app.tar~' && mv '{place}/app.tar~' '{place}/app.tar'"),
        ("delete hello:latest", f"touch '{place}/hello!'"),
        ("see what the registry holds", f"curl {registry.url}/v2/_catalog"),
        ("see what became of your files", f"ls -A {place}/.receipts {place}/.failed"),
    ):
        say(f"\n  # {what}", DIM)
        say(f"  {command}")
    say("\nCtrl-C stops everything; what the registry holds goes with it.\n", BOLD)
    if code := spooler.wait():
        raise DemoFailed(f"the spooler ended with exit code {code}")


def _layer(source: Path, target: str) -> bytes:
    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        unwanted = member.name.endswith(
            (".pyc", ".a", "__pycache__", "/test", "/tests", "/site-packages", "/dist-packages")
        )
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return None if unwanted else member

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(source, target, filter=keep)
    return buffer.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Accept": f"{MANIFESTS}, */*"}), timeout=30) as response:
        return bytes(response.read())


def free_port(preferred: int) -> int:
    """The preferred port when nobody has it, else any."""
    for port in (preferred, 0):
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(("127.0.0.1", port))
            return int(candidate.getsockname()[1])
    raise DemoFailed("no port is free")


def _short(path: Path) -> str:
    """The path as a person here would type it."""
    with contextlib.suppress(ValueError):
        return f"./{path.relative_to(Path.cwd())}"
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
