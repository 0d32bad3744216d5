"""Who brings an archive to the cluster's registry: this project, and what people do without it."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zlib import crc32

from bench.over_wire.far_ends import FarEnd
from bench.over_wire.link import Link
from bench.process import RunFailed, run_measured
from bench.spooler import program

TIMEOUT_SECONDS = 1800
REGISTRY_PORT = 5000
LOCAL_PORTS = 20_000


@dataclass(frozen=True)
class User:
    """Somebody with a home, and a link to the far end."""

    far_end: FarEnd
    home: Path
    link: Link

    @property
    def command(self) -> list[str]:
        """The start of every command line of theirs."""
        return self.far_end.command(self.link.port, self.home)

    def run(self, *command: str) -> None:
        """Run a program to its end; RunFailed when it fails."""
        run_measured([*self.command, *command], self.home / "log", timeout_seconds=TIMEOUT_SECONDS)

    def spool(self, *arguments: str) -> str:
        """Run `kubectl spool`; what it prints."""
        done = subprocess.run(
            [*self.command, program("kubectl-spool"), *arguments], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise RunFailed(f"kubectl spool ended with {done.returncode}: {done.stderr[-600:]}")
        return done.stdout.strip()

    def follow(self, word: str, *command: str) -> float:
        """Run a program, and return how long it went on after it first said a word."""
        process = subprocess.Popen(
            [*self.command, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        heard, lines = time.monotonic(), []
        assert process.stdout is not None
        for line in process.stdout:
            if word in line and not any(word in before for before in lines):
                heard = time.monotonic()
            lines.append(line)
        if process.wait():
            raise RunFailed(f"{command[0]} ended with {process.returncode}: {''.join(lines)[-600:]}")
        return time.monotonic() - heard


Send = Callable[[User, Path, str], None]


def by_spool(user: User, archive: Path, reference: str) -> None:
    """`kubectl spool push`, as users type it."""
    user.spool("push", "--quiet", str(archive), reference)


def by_spool_whole(user: User, archive: Path, reference: str) -> None:
    """The same, but layers that are missing go whole."""
    user.spool("push", "--quiet", "--delta=never", str(archive), reference)


def by_copy(user: User, archive: Path, reference: str) -> None:
    """`kubectl cp` and `mv`, as the README says."""
    target = f"{user.far_end.pod}:{_arriving(reference)}"
    copy = shlex.join(["kubectl", "cp", "--container=spooler", str(archive), target])
    user.run("sh", "-ec", f"{copy}\n{_in_pod(user, _take_in(reference, 'tar'))}")


def by_pipe(user: User, archive: Path, reference: str) -> None:
    """`docker save | gzip | ssh`, with the pod in the place of the machine."""
    remote = f"cat > {_arriving(reference)}; {_take_in(reference, 'tgz')}"
    user.run("sh", "-ec", f"gzip -c {shlex.quote(str(archive))} | {_in_pod(user, remote, '--stdin')}")


def by_skopeo(user: User, archive: Path, reference: str) -> None:
    """A client of registries through a port that is forwarded: missing layers only, as unregistry does over ssh."""
    if not user.far_end.is_real:
        raise RunFailed("the stand-in forwards no port")
    # Always the same one: skopeo remembers by host and port what a registry has.
    port = LOCAL_PORTS + crc32(bytes(user.home)) % 10_000
    command = ["kubectl", "port-forward", f"pod/{user.far_end.pod}", f"{port}:{REGISTRY_PORT}"]
    forwarding = subprocess.Popen([*user.command, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert forwarding.stdout is not None
        _wait_until_forwarded(forwarding.stdout)
        copy = ("skopeo", "--insecure-policy", f"--tmpdir={user.home}", "copy", "--quiet", "--dest-tls-verify=false")
        user.run(*copy, f"docker-archive:{archive}", f"docker://127.0.0.1:{port}/{reference}")
    finally:
        forwarding.kill()
        forwarding.communicate()


SENDERS: dict[str, Send] = {
    "spool": by_spool,
    "whole": by_spool_whole,
    "skopeo": by_skopeo,
    "pipe": by_pipe,
    "cp": by_copy,
}


def _arriving(reference: str) -> str:
    """Where a file grows that is not complete."""
    return f"/spool/{reference}~"


def _take_in(reference: str, suffix: str) -> str:
    """What a shell in the pod does when it is."""
    name = f"{reference}.{suffix}"
    return f"mv {_arriving(reference)} /spool/{name}; registry-client wait {name}"


def _in_pod(user: User, script: str, *flags: str) -> str:
    return shlex.join(["kubectl", "exec", *flags, user.far_end.pod, "--container=spooler", "--", "sh", "-ec", script])


def _wait_until_forwarded(output: IO[bytes]) -> None:
    said = b""
    for line in output:
        if line.startswith(b"Forwarding from"):
            return
        said += line
    raise RunFailed(f"kubectl port-forward ended: {said.decode()}")
