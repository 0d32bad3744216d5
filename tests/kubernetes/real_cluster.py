"""The way into the pod in a real cluster, while parts of that cluster fail: run by hand, not a part of the suite.

    python tests/kubernetes/real_cluster.py --kubeconfig PUSHER --admin ADMIN --hook NAME=COMMAND …

PUSHER is the kubeconfig of a user with nothing but the role `registry-spooler-push`, ADMIN one that may delete pods and
exec. The spooler runs in the namespace of both. A hook is a shell command that breaks a part of the cluster and mends
it again: `apiserver-restarts`, `apiserver-away` (for a minute), `kubelet-restarts`, `kubelet-dies` (for 20 seconds),
`spooler-killed` and `registry-killed` (one container, by SIGKILL).
Cases whose hook is missing are told as not run, and the exit code is then 2. Each case prints a line: what
was done, what came of it, how long it took. `--only CASE` (repeatable) chooses.
"""

from __future__ import annotations

# ruff: noqa: T201 - it prints its findings
import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MEGA = 1 << 20
BREAK_AFTER_SECONDS = 5.0
"""By then the push has begun to send: see `RATE`."""
RATE = "16M"
PROGRAM = Path(sys.executable).parent / "kubectl-spool"
SELECTOR = "app.kubernetes.io/name=registry-spooler"


class Failed(Exception):
    """A case did not come out as it should."""


@dataclass(frozen=True)
class Outcome:
    """What a program came to."""

    code: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Place:
    """The cluster and the user's folder."""

    folder: Path
    pusher: Path
    admin: Path
    hooks: dict[str, str]
    megabytes: int

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "KUBECONFIG": str(self.pusher), "HOME": str(self.folder)}
        return subprocess.Popen(
            [str(PROGRAM), *arguments],
            env=environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def spool(self, *arguments: str, meanwhile: Callable[[], None] | None = None) -> Outcome:
        """Run `kubectl-spool` as the pusher, and break something when it has been at work for a while."""
        started = time.monotonic()
        process = self.start(*arguments)
        if meanwhile is not None:
            try:
                process.wait(BREAK_AFTER_SECONDS)
                raise Failed(f"it ended before anything was broken: {process.communicate()}")
            except subprocess.TimeoutExpired:
                meanwhile()
        stdout, stderr = process.communicate(timeout=600)
        return Outcome(process.returncode, stdout, stderr, time.monotonic() - started)

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as the admin."""
        command = ["kubectl", f"--kubeconfig={self.admin}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout

    def hook(self, name: str) -> None:
        subprocess.run(self.hooks[name], shell=True, check=True, timeout=300, stdout=subprocess.DEVNULL)  # noqa: S602 - the caller's own command

    def pod(self) -> str:
        return self.kubectl("get", "pods", "-l", SELECTOR, "-o", "jsonpath={.items[0].metadata.name}")

    def replace_pod(self) -> None:
        self.kubectl("rollout", "restart", "deployment/registry-spooler")

    def delete_pod(self) -> None:
        self.kubectl("delete", "pod", "--wait=false", self.pod())

    def ready(self) -> None:
        self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
        self.kubectl("rollout", "status", "deployment/registry-spooler", "--timeout=120s")

    def image(self, layers: int) -> Path:
        """A docker archive that nobody has pushed."""
        path = self.folder / "app.tar"
        contents = [_tar({f"file{at}": os.urandom(self.megabytes * MEGA // layers)}) for at in range(layers)]
        diff_ids = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in contents]
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        ).encode()
        names = [f"{at}/layer.tar" for at in range(layers)]
        index = json.dumps([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}]).encode()
        path.write_bytes(
            _tar({"config.json": config, **dict(zip(names, contents, strict=True)), "manifest.json": index})
        )
        return path


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _diff_ids(path: Path) -> list[str]:
    """The digests of an archive's layers, unpacked."""
    with tarfile.open(path) as archive:
        (image,) = json.load(_member(archive, "manifest.json"))
        contents = (_member(archive, name).read() for name in image["Layers"])
        return [hashlib.sha256(gzip.decompress(c) if c[:2] == b"\x1f\x8b" else c).hexdigest() for c in contents]


def _member(archive: tarfile.TarFile, name: str) -> io.BufferedReader:
    found = archive.extractfile(name)
    assert found is not None
    return found  # type: ignore[return-value]


def _require(outcome: Outcome, what: object) -> None:
    if not what:
        raise Failed(f"exit code {outcome.code} after {outcome.seconds:.1f} s: {outcome.stdout} {outcome.stderr}")


def push_survives(place: Place, tag: str, layers: int, breaks: Callable[[], None]) -> Outcome:
    """Push, break something meanwhile, pull it again and compare."""
    path = place.image(layers)
    outcome = place.spool("push", str(path), f"real/app:{tag}", "--rate-limit", RATE, "--quiet", meanwhile=breaks)
    _require(outcome, outcome.code == 0 and outcome.stdout.startswith("sha256:"))
    place.ready()
    pulled = place.spool("pull", f"real/app:{tag}", "-o", "pulled.tar", "--quiet")
    _require(pulled, pulled.code == 0)
    _require(pulled, _diff_ids(path) == _diff_ids(place.folder / "pulled.tar"))
    return outcome


def publish_survives(place: Place, tag: str, breaks: Callable[[], None]) -> Outcome:
    """Publish, break something meanwhile, and wait until the spooler has pushed it."""
    place.image(1)
    arguments = ("publish", "app.tar", f"real/published:{tag}", "--wait", "--rate-limit", RATE, "--quiet")
    outcome = place.spool(*arguments, meanwhile=breaks)
    _require(outcome, outcome.code == 0 and outcome.stdout.startswith("sha256:"))
    return outcome


def pull_is_whole_or_fails(place: Place, tag: str, to_pipe: bool, breaks: Callable[[], None]) -> Outcome:
    """Pull, break something meanwhile: the archive is whole, or the exit code says that it is not."""
    path = place.image(4)
    pushed = place.spool("push", str(path), f"real/app:{tag}", "--quiet")
    _require(pushed, pushed.code == 0)
    target = place.folder / "pulled.tar"
    target.unlink(missing_ok=True)
    started = time.monotonic()
    options = [] if to_pipe else ["-o", str(target)]
    process = place.start("pull", f"real/app:{tag}", "--quiet", *options)
    assert process.stdout is not None
    got = process.stdout.buffer.read(MEGA) if to_pipe else b""
    if not to_pipe:
        while not any(part.stat().st_size > MEGA for part in place.folder.glob(".pulled.tar-*")):
            time.sleep(0.02)
    breaks()
    got += process.stdout.buffer.read()
    stderr = process.stderr.read() if process.stderr is not None else ""
    outcome = Outcome(process.wait(), "", stderr, time.monotonic() - started)
    if to_pipe:
        target.write_bytes(got)
    if outcome.code == 0:
        _require(outcome, _diff_ids(path) == _diff_ids(target))
    else:
        _require(outcome, stderr.startswith("kubectl spool:") and (to_pipe or not target.exists()))
    return outcome


def cases(place: Place) -> Iterator[tuple[str, str | None, Callable[[str], Outcome]]]:
    """Name, hook, and what to do."""
    hooked = ("apiserver-restarts", "apiserver-away", "kubelet-restarts", "spooler-killed", "registry-killed")
    for name in hooked:
        yield f"push, {name}", name, lambda tag, name=name: push_survives(place, tag, 5, lambda: place.hook(name))
        yield (
            f"push of one layer, {name}",
            name,
            lambda tag, name=name: push_survives(place, tag, 1, lambda: place.hook(name)),
        )
    inside = {
        "pod replaced": place.replace_pod,
        "pod deleted": place.delete_pod,
    }
    for name, breaks in inside.items():
        yield f"push, {name}", None, lambda tag, breaks=breaks: push_survives(place, tag, 5, breaks)
    yield "publish, pod deleted", None, lambda tag: publish_survives(place, tag, place.delete_pod)
    for name in ("apiserver-restarts", "kubelet-restarts", "kubelet-dies"):
        for to_pipe in (False, True):
            title = f"pull to a {'pipe' if to_pipe else 'file'}, {name}"
            yield (
                title,
                name,
                lambda tag, name=name, to_pipe=to_pipe: pull_is_whole_or_fails(
                    place, tag, to_pipe, lambda: place.hook(name)
                ),
            )


def main() -> int:
    """Run the cases; 0 when all held, 1 when one did not, 2 when some could not be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="of the user who pushes")
    parser.add_argument("--admin", type=Path, required=True, help="of one who may delete pods")
    parser.add_argument("--hook", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--only", action="append", default=[], metavar="CASE")
    parser.add_argument("--megabytes", type=int, default=200)
    arguments = parser.parse_args()
    hooks = dict(text.split("=", 1) for text in arguments.hook)
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Place(
            Path(folder), arguments.kubeconfig.resolve(), arguments.admin.resolve(), hooks, arguments.megabytes
        )
        for number, (name, hook, case) in enumerate(cases(place)):
            if arguments.only and not any(only in name for only in arguments.only):
                continue
            if hook is not None and hook not in hooks:
                print(f"NOT RUN  {name}: no --hook {hook}=…", flush=True)
                code = code or 2
                continue
            try:
                place.ready()
                outcome = case(f"{os.getpid()}-{number}")
                told = " | ".join(outcome.stderr.splitlines())
                print(f"ok       {name}: exit code {outcome.code}, {outcome.seconds:.1f} s. {told}", flush=True)
            except (Failed, subprocess.SubprocessError) as exc:
                print(f"FAILED   {name}: {exc}", flush=True)
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
