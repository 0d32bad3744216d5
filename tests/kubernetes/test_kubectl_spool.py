"""Every command of `kubectl spool`, beside a real spooler and a real registry."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import random
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from registry_spooler.cli.kubectl.target import Rate
from support.cluster.apiserver import ApiServer
from support.cluster.terminal import PROGRAMS, Terminal
from support.cluster.wire import Wire
from support.images import archives, signed
from support.images.archive_parts import Image, big_layer, layer, read_tar
from support.images.archives import oci_manifest
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

MEGA = 1 << 20


@pytest.fixture
def spool_directory(spool: Path) -> Spool:
    return Spool(spool)


@pytest.fixture
def spooler(spool_directory: Spool, registry: RunningRegistry) -> Iterator[RunningSpooler]:
    with RunningSpooler(spool_directory, registry.url) as running:
        yield running


@pytest.fixture
def pod(api: ApiServer, spooler: RunningSpooler, registry: RunningRegistry) -> ApiServer:
    """The pod, complete."""
    api.registry = registry.url
    api.health_port = int(spooler.health_url.rpartition(":")[2])
    return api


@pytest.fixture
def pod_without_spooler(api: ApiServer, registry: RunningRegistry) -> ApiServer:
    """The pod's registry alone, for what asks nothing of the spooler."""
    api.registry = registry.url
    return api


@pytest.fixture
def terminal(tmp_path: Path, kubeconfig: Path) -> Terminal:
    return Terminal(tmp_path, kubeconfig)


@pytest.fixture
def archive(tmp_path: Path, repository: str) -> Path:
    path = tmp_path / "app.tar"
    seed = int(repository[-12:], 16)
    image = Image(layers=(layer(repository), big_layer(MEGA, seed=seed)), names=(f"localhost/{repository}:1",))
    path.write_bytes(archives.podman_docker(image))
    return path


async def test_push_prints_the_digest_and_nothing_else(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, repository: str, registry: RunningRegistry
) -> None:
    done = await terminal.spool("push", "app.tar", f"{repository}:1")
    assert [Reader(registry).image(repository, "1").digest] == done.lines
    assert f"app.tar → {repository}:1: " in done.stderr
    again = await terminal.spool("push", "app.tar", f"{repository}:2", "--quiet")
    assert (done.lines, "") == (again.lines, again.stderr)


@pytest.fixture
def podman(terminal: Terminal) -> Iterator[None]:
    """Podman has a storage of its own, at the terminal too; its run root's path has to be short."""
    settings = terminal.folder / "storage.conf"
    terminal.environment["CONTAINERS_STORAGE_CONF"] = str(settings)
    with tempfile.TemporaryDirectory(prefix="podman-") as run:
        storage = {"driver": "vfs", "graphroot": f"{terminal.folder}/storage", "runroot": run}
        settings.write_text("[storage]\n" + "".join(f'{key} = "{value}"\n' for key, value in storage.items()))
        yield


@pytest.mark.usefixtures("podman", "pod_without_spooler")
async def test_podmans_image_is_that_of_its_archive_and_is_not_sent_again(
    terminal: Terminal, repository: str, registry: RunningRegistry
) -> None:
    (terminal.folder / "data").write_bytes(random.Random(repository).randbytes(MEGA))
    (terminal.folder / "Containerfile").write_text("FROM scratch\nCOPY data /\n")
    await terminal.run("podman", "build", "--quiet", "--tag", f"{repository}:1", ".")
    first = await terminal.spool("push", f"podman:localhost/{repository}:1", f"{repository}:1")
    assert [Reader(registry).image(repository, "1").digest] == first.lines
    again = await terminal.spool("push", f"podman:localhost/{repository}:1", f"{repository}:2", "--json")
    receipt = json.loads(again.stdout)
    assert first.lines == [receipt["digest"]]
    assert receipt["blobs"] == {"uploaded": 0, "existing": 2, "mounted": 0}
    await terminal.run("podman", "save", "--quiet", "--output", "app.tar", f"localhost/{repository}:1")
    assert first.lines == (await terminal.spool("push", "app.tar", f"{repository}:3")).lines


async def test_what_is_recompressed_has_another_digest_and_is_told(
    terminal: Terminal, pod_without_spooler: ApiServer, repository: str, registry: RunningRegistry, tmp_path: Path
) -> None:
    built = Image(layers=(layer(repository), big_layer(MEGA)))
    (tmp_path / "oci.tar").write_bytes(archives.oci_archive(built))
    before = await terminal.spool("push", "oci.tar", f"{repository}:1")
    done = await terminal.spool("push", "oci.tar", f"{repository}:2", "--repack")
    assert [Reader(registry).image(repository, "2").digest] == done.lines != before.lines
    assert f"recompressed, so its digest differs from the archive's, {before.lines[0]}" in done.stderr
    refused = await terminal.spool("push", "oci.tar", f"{repository}:3", "--repack", "--compression=none", code=2)
    assert "--repack and --compression none exclude each other" in refused.stderr


async def test_as_a_plugin_of_kubectl(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, repository: str, registry: RunningRegistry
) -> None:
    done = await terminal.run("kubectl", "spool", "push", "app.tar", f"{repository}:1", "-n", "registry")
    assert [Reader(registry).image(repository, "1").digest] == done.lines
    completed = await terminal.run("kubectl", "__complete", "spool", "pu")
    assert ["publish", "pull", "push"] == [line.split("\t")[0] for line in completed.lines[:3]]


async def test_without_kubectl(
    terminal: Terminal,
    pod_without_spooler: ApiServer,
    archive: Path,
    repository: str,
    registry: RunningRegistry,
    tmp_path: Path,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    program = str(Path(terminal.path.split(":")[0]) / "kubectl-spool")
    alone = Terminal(terminal.folder, terminal.kubeconfig, path=str(empty))
    done = await alone.run(program, "push", "app.tar", f"{repository}:1")
    assert [Reader(registry).image(repository, "1").digest] == done.lines
    refused = await alone.run(program, "install", "--image", "spooler:1", code=1)
    assert "there is no kubectl, which applies the manifests; write them with --output" in refused.stderr


async def test_push_from_a_pipe(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, repository: str, registry: RunningRegistry
) -> None:
    done = await terminal.run("sh", "-c", f"cat app.tar | kubectl-spool push - {repository}:1 --json")
    assert (f"{repository}:1", Reader(registry).image(repository, "1").digest) == (
        done.json["reference"],
        done.json["digest"],
    )
    assert {"uploaded": 3, "existing": 0, "mounted": 0} == done.json["blobs"]


async def test_several_files_go_where_their_names_say(
    terminal: Terminal,
    pod_without_spooler: ApiServer,
    archive: Path,
    repository: str,
    registry: RunningRegistry,
    tmp_path: Path,
) -> None:
    names = [f"{repository}/one:1.tar".replace("/", "\\"), f"{repository}/two:2.tar".replace("/", "\\")]
    for name in names:
        (tmp_path / name).write_bytes(archive.read_bytes())
    done = await terminal.spool("push", *names)
    digests = [
        Reader(registry).image(f"{repository}/one", "1").digest,
        Reader(registry).image(f"{repository}/two", "2").digest,
    ]
    assert digests == done.lines


async def test_one_bad_file_does_not_stop_the_others(
    terminal: Terminal,
    pod_without_spooler: ApiServer,
    archive: Path,
    repository: str,
    registry: RunningRegistry,
    tmp_path: Path,
) -> None:
    good, bad = (f"{repository}/{name}.tar".replace("/", "\\") for name in ("good", "bad"))
    (tmp_path / good).write_bytes(archive.read_bytes())
    (tmp_path / bad).write_bytes(b"no archive")
    done = await terminal.spool("push", bad, good, code=1)
    assert [Reader(registry).image(f"{repository}/good").digest] == done.lines
    assert not Reader(registry).has(f"{repository}/bad", "latest")


async def test_every_pod(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, repository: str, wire: Wire
) -> None:
    pod_without_spooler.pods = ("spooler-0", "spooler-1")
    done = await terminal.spool("push", "app.tar", f"{repository}:1", "--all-pods")
    assert 2 == len(done.lines)
    assert 1 == len(set(done.lines))
    assert set(pod_without_spooler.pods) == {
        request.split("/")[-2] for request in pod_without_spooler.requests if request.endswith("/exec")
    }


async def test_publish_and_wait(
    terminal: Terminal, pod: ApiServer, archive: Path, repository: str, registry: RunningRegistry
) -> None:
    done = await terminal.spool("publish", "app.tar", f"{repository}:1", "--wait")
    assert [Reader(registry).image(repository, "1").digest] == done.lines


async def test_publish_of_what_fails(
    terminal: Terminal, pod: ApiServer, repository: str, tmp_path: Path, registry: RunningRegistry, archive: Path
) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    name = f"{repository}:1.tar".replace("/", "\\")
    refused = await terminal.spool("publish", "bad.tar", name, "--wait", code=1)
    assert "kubectl spool: " in refused.stderr
    records = (await terminal.spool("failed", "--json")).json
    assert [name] == [record["name"] for record in records]
    assert (await terminal.spool("failed")).lines[0].startswith(f"{name}\t")
    assert "failed" in (await terminal.spool("wait", name, code=1)).stderr
    doctor = await terminal.spool("doctor")
    assert "note     failed files: 1; `kubectl spool failed` lists them with their reasons" in doctor.lines
    (pod.spool / ".failed" / name).write_bytes(archive.read_bytes())
    assert [name] == (await terminal.spool("retry", name)).lines
    await terminal.spool("publish", "app.tar", f"{repository}:2", "--wait")  # in the order of arrival: behind it
    assert Reader(registry).has(repository, "1")
    assert "no file" in (await terminal.spool("retry", name, code=3)).stderr


async def test_a_file_that_failed_for_its_name_is_tried_again_by_another_or_given_up(
    terminal: Terminal, pod: ApiServer, repository: str, registry: RunningRegistry, archive: Path
) -> None:
    for name in ("Wrong Name.tar", "Other Name.tar"):
        (pod.spool / f"{name}~").write_bytes(archive.read_bytes())
        (pod.spool / f"{name}~").rename(pod.spool / name)
        assert "failed" in (await terminal.spool("wait", name, code=1)).stderr
    await terminal.spool("retry", "Wrong Name.tar", "--as", f"{repository}:1")
    name = f"{repository}:1.tar".replace("/", "\\")
    (digest,) = (await terminal.spool("wait", name)).lines
    assert digest == Reader(registry).image(repository, "1").digest
    assert ["Other Name.tar"] == (await terminal.spool("discard", "--yes", "Other Name.tar")).lines
    assert [] == os.listdir(pod.spool / ".failed")
    again = await terminal.spool("discard", "-y", "Other Name.tar", code=3)
    assert "no file 'Other Name.tar' has failed" in again.stderr


async def test_publish_of_an_archive_under_any_name_is_an_image(
    terminal: Terminal, pod: ApiServer, archive: Path, registry: RunningRegistry, repository: str
) -> None:
    name = repository.replace("/", "\\")
    done = await terminal.spool("publish", "app.tar", f"{name}:v5", "--wait", "--json")
    assert f"{name}:v5.tar" == done.json["file"]
    image = Reader(registry).image(repository, "v5")
    assert (image.digest, 2) == (done.json["digest"], len(image.layers))


async def test_the_second_of_two_arguments_is_the_name_whatever_lies_beside_it(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, registry: RunningRegistry, tmp_path: Path
) -> None:
    name = "app" + hashlib.sha256(str(tmp_path).encode()).hexdigest()
    (tmp_path / name).mkdir()
    (digest,) = (await terminal.spool("push", "app.tar", name)).lines
    assert digest == Reader(registry).image(name).digest
    (tmp_path / name).rmdir()
    (tmp_path / name).write_bytes(b"another file")
    assert [digest] == (await terminal.spool("push", "app.tar", name)).lines
    assert 2 == len((await terminal.spool("push", "./app.tar", f"./{name}")).lines)


async def test_an_archive_without_a_suffix_is_the_image_that_it_is(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, registry: RunningRegistry, repository: str
) -> None:
    (digest,) = (await terminal.spool("push", "app.tar", f"{repository}:1")).lines
    archive.rename(archive.with_name("appimage"))
    assert [digest] == (await terminal.spool("push", "appimage", f"{repository}:2")).lines


async def test_an_image_of_an_engine_is_pushed_by_its_name(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, registry: RunningRegistry, repository: str
) -> None:
    docker = archive.with_name("docker")
    docker.write_text(f'#!/bin/sh\n[ "$1" = image ] && exec [ "$3" = {repository}:v2 ]\nexec cat {archive}\n')
    docker.chmod(0o755)
    at_hand = replace(terminal, path=f"{docker.parent}:{terminal.path}")
    (digest,) = (await at_hand.spool("push", f"{repository}:v2")).lines
    assert digest == Reader(registry).image(repository, "v2").digest
    assert [digest] == (await at_hand.spool("push", f"docker:{repository}:v2", f"{repository}:v3")).lines
    refused = await replace(terminal, path=f"{docker.parent}:{PROGRAMS}").spool("push", "no-such:1", code=1)
    assert "docker has no image 'no-such:1'" in refused.stderr


async def test_without_the_extra_one_sentence_says_what_to_install(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\nsys.modules['kubernetes_asyncio'] = sys.modules['rich'] = sys.modules['yaml'] = None\n"
    )
    terminal.environment["PYTHONPATH"] = str(tmp_path / "site")
    for command in (("list",), ("push", str(Path(__file__)), "app"), ("install", "--print")):
        done = await terminal.run("kubectl-spool", *command, code=1)
        assert done.stderr.endswith(" is not installed: pip install 'registry-spooler[client]'\n")
        assert 1 == len(done.stderr.splitlines())


async def test_looking_pulling_and_deleting(
    terminal: Terminal,
    pod_without_spooler: ApiServer,
    archive: Path,
    repository: str,
    tmp_path: Path,
    registry: RunningRegistry,
) -> None:
    (digest,) = (await terminal.spool("push", "app.tar", f"{repository}:1")).lines
    assert repository in (await terminal.spool("list")).lines
    assert f"{repository}:1" in (await terminal.spool("list", "--tags", "--json")).json
    assert ["1"] == (await terminal.spool("tags", repository)).lines
    inspected = (await terminal.spool("inspect", f"{repository}:1", "--json")).json
    assert (digest, 2) == (inspected["digest"], len(inspected["platforms"][0]["layers"]))
    assert digest in (await terminal.spool("inspect", f"{repository}:1")).stdout.decode()
    assert [digest] == (await terminal.spool("inspect", f"{repository}:1", "--format", "digest")).lines
    manifest = (await terminal.spool("inspect", f"{repository}:1", "--format", "raw")).stdout
    assert digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    piped = (await terminal.spool("pull", f"{repository}:1")).stdout
    await terminal.spool("pull", f"{repository}:1", "-o", "pulled.tar")
    assert piped == (tmp_path / "pulled.tar").read_bytes()
    assert "manifest.json" in read_tar(piped)
    assert [digest] == (await terminal.spool("delete", f"{repository}:1")).lines
    assert not Reader(registry).has(repository, "1")
    again = await terminal.spool("delete", f"{repository}:1", code=3)
    assert ([], f"kubectl spool: {repository}:1 was not there\n") == (again.lines, again.stderr)
    (document,) = (await terminal.spool("delete", f"{repository}:1", "--json", code=3)).json
    assert {"reference": f"{repository}:1", "digest": None} == document


async def test_a_file_comes_back_as_it_was(
    terminal: Terminal, pod_without_spooler: ApiServer, repository: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_bytes(content := os.urandom(100_000))
    await terminal.spool("push", "notes.txt", f"{repository}:1")
    assert content == (await terminal.spool("pull", f"{repository}:1", "--unpack")).stdout


async def test_a_pull_that_breaks_begins_again(
    terminal: Terminal, pod_without_spooler: ApiServer, repository: str, tmp_path: Path, wire: Wire
) -> None:
    (tmp_path / "notes.bin").write_bytes(content := os.urandom(3 * MEGA))
    await terminal.spool("push", "notes.bin", f"{repository}:1")
    wire.cut_after(received=MEGA)
    done = await terminal.spool("pull", f"{repository}:1", "--unpack", "-o", "back")
    assert "reconnecting" in done.stderr
    assert content == (tmp_path / "back").read_bytes()
    wire.cut_after(received=MEGA)
    piped = await terminal.spool("pull", f"{repository}:1", "--unpack")
    assert ("reconnecting" in piped.stderr, content) == (True, piped.stdout)
    wire.cut_after(received=MEGA)
    broken = await terminal.spool("pull", f"{repository}:1", "--format", "oci", code=1)
    assert "was lost" in broken.stderr
    assert ["back", "notes.bin"] == sorted(name for name in os.listdir(tmp_path) if "back" in name or "notes" in name)


async def test_a_pull_into_no_folder(terminal: Terminal, api: ApiServer) -> None:
    done = await terminal.spool("pull", "app:1", "-o", "nowhere/app.tar", code=1)
    assert "cannot write nowhere/app.tar: No such file or directory" in done.stderr


async def test_status_and_logs(terminal: Terminal, pod: ApiServer) -> None:
    (headline, *_) = (await terminal.spool("status")).lines
    assert "up; 0 running, 0 waiting" in headline
    assert (await terminal.spool("status", "--json")).json["ready"] is True
    assert ["spooler ready"] == (await terminal.spool("logs", "--tail", "1")).lines


async def test_watching_the_status_until_ctrl_c(terminal: Terminal, pod: ApiServer) -> None:
    process = await terminal.start(["kubectl-spool", "status", "--watch"])
    assert process.stdout is not None
    assert b"registry" in await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert -signal.SIGINT == await process.wait()
    _, stderr = await process.communicate()
    assert b"" == stderr
    await pod.all_ended()


async def test_watching_the_status_on_a_terminal(terminal: Terminal, pod: ApiServer, repository: str) -> None:
    name = f"{repository}.tar".replace("/", "\\")
    (pod.spool / name).write_bytes(b"no archive")
    await terminal.spool("publish", str(Path(__file__)), f"{repository}:1.py", "--wait", "--quiet")
    ours, theirs = pty.openpty()
    process = await terminal.start(["kubectl-spool", "status", "--watch"], stdout=theirs)
    os.close(theirs)
    shown = ""
    while "done" not in shown:  # the test's time-out bounds it
        shown += (await asyncio.to_thread(os.read, ours, 65536)).decode()
    process.send_signal(signal.SIGINT)
    assert -signal.SIGINT == await process.wait()
    os.close(ours)
    await process.communicate()
    assert "up; 0 running" in shown


async def test_doctor_when_all_is_well(terminal: Terminal, pod: ApiServer) -> None:
    done = await terminal.spool("doctor")
    assert all(line.startswith("ok ") for line in done.lines)
    checks = [finding["check"] for finding in (await terminal.spool("doctor", "--json")).json]
    assert ["login", "pods", "exec", "versions"] == checks[:4]
    assert {"spooler", "failed files", "registry", "logs"} == set(checks[4:])


@pytest.mark.parametrize(
    ("path", "status", "check", "sentence"),
    [
        ("/pods", 403, "pods", "kubectl auth can-i list pods -n registry"),
        ("/exec", 403, "exec", "kubectl auth can-i get pods --subresource=exec -n registry"),
        ("/log", 403, "logs", "kubectl auth can-i get pods --subresource=log -n registry"),
        ("/pods", 401, "pods", "log in to the cluster again"),
    ],
)
async def test_doctor_when_something_is_wrong(
    terminal: Terminal, pod: ApiServer, path: str, status: int, check: str, sentence: str
) -> None:
    pod.refuse(path, status, "not for you", times=100)
    done = await terminal.spool("doctor", code=1)
    (trouble,) = [line for line in done.lines if line.startswith("TROUBLE")]
    assert trouble.startswith(f"TROUBLE  {check}: ")
    assert sentence in trouble


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("tags", "no-such/repository"), 3, "404"),
        (("-n", "elsewhere", "list"), 3, "kubectl get pods"),
        (("list", "-l", "app=other"), 3, "has no pod with the label 'app=other'"),
        (("list", "-c", "other"), 3, "it has: registry, spooler"),
        (("list", "-c", "registry", "--pod", "spooler-9"), 3, "spooler-9"),
        (("list", "--context", "other"), 1, "kubectl config get-contexts"),
        (("list", "--kubeconfig", "/no/such/file"), 1, "there is no kubeconfig at /no/such/file"),
        (("push", "no-such-file"), 2, "there is no file 'no-such-file'"),
        (("push", "app.tar", "Upper/Case"), 2, "lower-case"),
        (("push", "-"), 2, "needs a NAME"),
        (("push", "app.tar", "app.tar", "name"), 2, "a NAME goes with a single FILE"),
        (("push", "catalog/app", "app.tar"), 2, "the FILE comes first: push app.tar catalog/app"),
        (("push", "app.tar", "app@sha256:" + "0" * 64), 2, "a digest cannot be chosen; push to a tag"),
        (("publish", "no-such-file"), 2, "does not exist"),
        (("retry", "a", "b", "--as", "c"), 2, "--as takes a single NAME"),
        (("discard", "a"), 2, "add --yes"),
        (("push", "app.tar", "x", "--rate-limit", "fast"), 2, "is not a rate"),
        (("no-such-command",), 2, "No such command"),
    ],
)
async def test_mistakes(
    terminal: Terminal,
    pod_without_spooler: ApiServer,
    archive: Path,
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    done = await terminal.spool(*arguments, code=code)
    assert sentence in done.stderr
    assert b"" == done.stdout


async def test_not_allowed(terminal: Terminal, pod_without_spooler: ApiServer) -> None:
    pod_without_spooler.refuse("/exec", 403, "no", times=100)
    assert "can-i get pods --subresource=exec" in (await terminal.spool("list", code=4)).stderr


async def test_completion_scripts(terminal: Terminal) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert b"kubectl-spool" in (await terminal.spool("completion", shell)).stdout


async def test_a_bar_on_a_terminal(
    terminal: Terminal, pod_without_spooler: ApiServer, archive: Path, repository: str, registry: RunningRegistry
) -> None:
    ours, theirs = pty.openpty()
    process = await terminal.start(
        ["kubectl-spool", "push", "app.tar", f"{repository}:1", "--rate-limit", "500k"], stderr=theirs
    )
    os.close(theirs)
    shown = await asyncio.to_thread(read_terminal, ours)
    stdout, _ = await process.communicate()
    assert Reader(registry).image(repository, "1").digest == stdout.decode().strip()
    assert "%" in shown
    assert re.search(r"[\d.]+ [KM]iB sent", shown)


def read_terminal(descriptor: int) -> str:
    """All that is shown until the last program has left."""
    shown = b""
    with suppress(OSError):  # EIO is its end
        while piece := os.read(descriptor, 65536):
            shown += piece
    os.close(descriptor)
    return shown.decode()


async def test_a_bundle_goes_where_the_archive_says(
    terminal: Terminal,
    pod_without_spooler: ApiServer,
    archive: Path,
    repository: str,
    registry: RunningRegistry,
    tmp_path: Path,
) -> None:
    archive.rename(tmp_path / "@app.tar")
    done = await terminal.spool("push", "@app.tar")
    assert [Reader(registry).image(repository, "1").digest] == done.lines


async def test_plain_kubectl_to_the_letter(
    terminal: Terminal, pod: ApiServer, registry: RunningRegistry, tmp_path: Path
) -> None:
    """The block under "With plain kubectl" in docs/pushing.md, as it stands there."""
    page = (Path(__file__).parents[2] / "docs/pushing.md").read_text()
    section = page[page.index("## With plain kubectl") :]
    script = section[section.index("```bash\n") + 8 :]
    script = script[: script.index("```")]
    assert "kubectl cp" in script
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()
    (tmp_path / "app.tar").write_bytes(archives.podman_docker(Image(layers=(layer(name),))))
    await terminal.run("bash", "-euo", "pipefail", "-c", script)
    assert Reader(registry).has("catalog/app", "v1")


async def test_what_speaks_of_an_image_travels_through_the_pod(
    terminal: Terminal,
    pod_without_spooler: ApiServer,
    make_registry: Callable[..., RunningRegistry],
    repository: str,
    tmp_path: Path,
) -> None:
    image = Image(names=("registry.example/app:1",))
    manifest = oci_manifest(image)
    signature, bundle = signed.signature(manifest), signed.bundle(manifest)
    (tmp_path / "signed.tar").write_bytes(signed.cosign_save(image, {"sigs": signature}, unlisted=[bundle]))
    (digest,) = (await terminal.spool("push", "signed.tar", f"{repository}:1")).lines
    await terminal.spool("pull", f"{repository}:1", "--format", "oci", "-o", "all.tar")
    await terminal.spool("pull", f"{repository}:1", "--format", "oci", "--no-referrers", "-o", "image.tar")
    path = f"blobs/sha256/{signature.digest.removeprefix('sha256:')}"
    assert path not in read_tar((tmp_path / "image.tar").read_bytes())
    assert path in read_tar((tmp_path / "all.tar").read_bytes())
    empty = make_registry()
    pod_without_spooler.registry = empty.url
    assert [digest] == (await terminal.spool("push", "all.tar", f"{repository}:1")).lines
    assert signature.digest == Reader(empty).image(repository, f"{digest.replace(':', '-')}.sig").digest


@pytest.mark.parametrize(
    ("text", "rate"), [("50K", 50e3), ("50k", 50e3), ("1.5KiB/s", 1536.0), ("2M", 2e6), ("1GiB", float(1 << 30))]
)
def test_rates(text: str, rate: float) -> None:
    assert rate == Rate().convert(text, None, None)
