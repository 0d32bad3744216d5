"""How the program ends when somebody stops it, or stops listening, and what it costs while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from support.images.posted import Poster, layer_tar, packed, sha256
from support.programs.running_spooler import program
from support.registries.verify import Registry

WAIT_SECONDS = 30.0
MIB = 1 << 20
PULL_MEMORY_MAX_BYTES = 80 * MIB
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_maxrss, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def large(registry: Registry) -> str:
    """An image of 200 MiB in one layer; its repository."""
    repository = f"tests/large/{uuid.uuid4().hex[:12]}"
    poster = Poster(registry, repository)
    config = poster.blob(b'{"os":"linux","architecture":"amd64"}', "application/vnd.oci.image.config.v1+json")
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [poster.blob(bytes(200 * MIB), "application/vnd.oci.image.layer.v1.tar")],
    }
    poster.manifest(document, tag="latest")
    return repository


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_pull_quietly_though_nobody_reads(client, large, signum, code):
    process = client.start("pull", large)
    assert process.stdout.read(1)

    process.send_signal(signum)

    assert process.wait(WAIT_SECONDS) == -signum  # which a shell shows as 128 and the signal's number
    assert 128 + signum == code
    assert process.stderr.read() == b""
    process.stdout.close()
    process.stderr.close()


def test_a_shell_sees_130(client, large):
    script = f"registry-client pull {large} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    environment = {**client.variables, "PATH": f"{Path(program('registry-client')).parent}:/usr/bin:/bin"}

    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == (b"141\n", b"")


def test_an_interrupted_pull_leaves_no_file(client, large, tmp_path):
    process = client.start("pull", large, "-o", "app.tar")
    while not (partial := list(tmp_path.glob(".app.tar.*"))):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)

    assert process.wait(WAIT_SECONDS) in (-signal.SIGINT, 0)
    process.stdout.close()
    process.stderr.close()
    assert not partial[0].exists()


def test_a_list_whose_reader_has_gone_ends_quietly(client, poster, repository):
    poster.image([layer_tar({"hello": b""})], tag="latest")
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [program("registry-client"), "list"], env=client.variables, stdout=writer, stderr=subprocess.PIPE, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(writer)

    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_an_output_that_is_full_is_an_error(client, poster, repository):
    poster.image([layer_tar({"hello": b""})], tag="latest")

    for arguments in (("list",), ("pull", repository)):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [program("registry-client"), *arguments], env=client.variables, stdout=full, stderr=subprocess.PIPE,
                timeout=60, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr == b"registry-client: cannot write standard output: No space left on device\n"


@pytest.mark.parametrize("options", [(), ("--format", "oci"), ("--unpack",)])
def test_a_large_layer_goes_through_little_memory(client, large, options):
    assert measured(client, "pull", large, *options) < PULL_MEMORY_MAX_BYTES


def test_a_layer_that_unpacks_to_much_goes_through_little_memory(client, poster, repository):
    content = bytes(300 * MIB)
    config = b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["%s"]}}'
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": poster.blob(config % sha256(content).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [poster.blob(packed(content), "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    poster.manifest(document, tag="latest")

    assert measured(client, "pull", "--unpack", repository) < PULL_MEMORY_MAX_BYTES


def test_it_starts_without_what_few_commands_need():
    loaded = "import sys, registry_spooler.cli.registry_client.command_line; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=100, check=True)

    modules = set(done.stdout.split())
    assert "registry_spooler.registry" in modules
    assert modules.isdisjoint(
        {"isal", "rich", "kubernetes_asyncio", "registry_spooler.archive", "registry_spooler.push"}
    )


def measured(client, *arguments: str) -> int:
    """The resident memory of a run at its largest, in bytes.

    Started by a small process: the kernel counts what a process had before its `exec` as its own.
    """
    command = [sys.executable, "-c", MEASURE, program("registry-client"), *arguments]
    done = subprocess.run(command, env=client.variables, stderr=subprocess.PIPE, timeout=100, check=True)
    return int(done.stderr.splitlines()[-1]) * 1024
