"""`push`: archives and files straight into the registry, from files and pipes."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from support.images.posted import Poster, layer_tar
from support.programs.command_client import Client
from support.programs.running_spooler import program
from support.registries.verify import Reader

LAYERS = [layer_tar({"hello": b"hello\n"}), layer_tar({"data": os.urandom(300_000)})]


@pytest.fixture
def archive(client, poster, repository) -> bytes:
    poster.image(LAYERS, tag="v1")
    return client.run("pull", f"{repository}:v1").stdout


def test_an_archive_on_standard_input(client, archive, registry, repository):
    digest = client.run("push", f"{repository}/copy", "-", stdin=archive).stdout.decode().strip()

    image = Reader(registry).image(f"{repository}/copy")
    assert image.digest == digest
    assert image.layers == Reader(registry).image(repository, "v1").layers


def test_the_same_archive_gives_the_same_digest_however_it_comes(client, archive, repository, tmp_path):
    (tmp_path / "app.tar").write_bytes(archive)
    (tmp_path / "app.tgz").write_bytes(gzip.compress(archive))
    target = f"{repository}/copy"

    digests = {
        *client.lines("push", target, "app.tar"),
        *client.lines("push", target, "app.tgz"),
        *client.lines("push", target, "-", stdin=archive),
        *client.lines("push", target, "-", stdin=gzip.compress(archive)),
        client.json("push", "--json", target, "app.tar")["digest"],
    }

    assert len(digests) == 1


def test_the_times_look_as_in_a_receipt(client, archive, repository, tmp_path):
    (tmp_path / "app.tar").write_bytes(archive)

    receipt = client.json("push", "--json", f"{repository}/copy", "app.tar")

    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", receipt[name]) for name in ("started", "finished")
    )


def test_an_archive_from_a_named_pipe(client, archive, registry, repository, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = client.start("push", f"{repository}/copy", "pipe")
    (tmp_path / "pipe").write_bytes(archive)

    output, _ = process.communicate(timeout=60)
    assert output.decode().strip() == Reader(registry).image(f"{repository}/copy").digest


def test_any_other_file_is_an_image_of_one_layer(client, registry, repository, tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"notes\n")
    (tmp_path / "notes.tar").write_bytes(b"no archive at all\n")
    reader = Reader(registry)

    client.run("push", repository, "notes.txt")
    assert reader.unpacked(repository, reader.image(repository).layers[0]) == b"notes\n"
    client.run("push", "--raw", repository, "notes.tar")
    assert reader.unpacked(repository, reader.image(repository).layers[0]) == b"no archive at all\n"


def test_an_archive_by_another_name(client, archive, registry, repository, tmp_path):
    (tmp_path / "image").write_bytes(archive)

    client.run("push", "--archive", f"{repository}/copy", "image")

    assert Reader(registry).image(f"{repository}/copy").layers == Reader(registry).image(repository, "v1").layers


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [("nothing.tar", 2, "there is no file 'nothing.tar'"), (".", 1, "it is a directory"), ("bad.tar", 1, "")],
)
def test_what_cannot_be_pushed_tags_nothing(client, registry, repository, tmp_path, name, code, reason):
    (tmp_path / "bad.tar").write_bytes(b"no archive at all\n")

    assert reason in client.error("push", "--archive", repository, name, code=code)
    assert Reader(registry).tags(repository) == []


def test_file_and_name_may_come_in_the_order_of_kubectl_spool(client, archive, repository, tmp_path):
    (tmp_path / "app.tar").write_bytes(archive)
    (tmp_path / "app").mkdir()
    target = f"{repository}/copy"
    (digest,) = client.lines("push", target, "app.tar")

    assert [digest] == client.lines("push", "app.tar", target)
    assert [digest] == client.lines("push", "-", target, stdin=archive)
    (tmp_path / "app.tar").rename(tmp_path / "image")
    assert [digest] == client.lines("push", "image", target)


def test_an_archive_whose_name_does_not_say_so_is_the_image_that_it_is(client, archive, repository, tmp_path):
    (tmp_path / "app.tar").write_bytes(archive)
    (tmp_path / "plain").write_bytes(archive)
    (tmp_path / "packed").write_bytes(gzip.compress(archive))
    (digest,) = client.lines("push", f"{repository}/copy", "app.tar")

    assert [digest] == client.lines("push", f"{repository}/copy", "plain")
    assert [digest] == client.lines("push", f"{repository}/copy", "packed")
    (tmp_path / "plain").write_bytes(archive[:-2000])
    assert "the archive ends within a header" in client.error("push", f"{repository}/cut", "plain", code=1)


def test_a_raw_file_does_not_come_through_a_pipe(client, repository):
    assert "name the file" in client.error("push", "--raw", repository, "-", code=2)


def test_a_pull_piped_into_a_push(client, archive, registry, repository, tmp_path):
    """What `pull` writes is what `push` reads, with no file between them."""
    command = [program("registry-client"), "pull", f"{repository}:v1"]
    with subprocess.Popen(command, env=client.variables, stdout=subprocess.PIPE) as pulling:
        assert pulling.stdout is not None
        client.run("push", f"{repository}/copy", "-", stdin=pulling.stdout)

    assert Reader(registry).image(f"{repository}/copy").layers == Reader(registry).image(repository, "v1").layers


def test_an_interrupted_push_gives_its_upload_up(make_registry, tmp_path):
    """The pipe stalls in the middle of a layer, then Ctrl-C."""
    registry = make_registry()
    client = Client(registry, tmp_path)
    Poster(registry, "large").image([layer_tar({"data": os.urandom(5_000_000)})], tag="latest")
    archive = client.run("pull", "large").stdout
    process = client.start("push", "app", "-", stdin=subprocess.PIPE)
    process.stdin.write(archive[:3_000_000])
    process.stdin.flush()
    uploads = registry.storage / "docker/registry/v2/repositories/app/_uploads"
    until(lambda: uploads.is_dir() and any(uploads.iterdir()))

    process.send_signal(signal.SIGINT)

    assert process.wait(30) == -signal.SIGINT
    assert process.stderr.read() == b""
    # The registry is told. Distribution 2.8 cannot forget an upload whose chunk has just broken off; it purges later.
    assert any('"DELETE /v2/app/blobs/uploads/' in line for line in registry.log)
    assert Reader(registry).tags("app") == []
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
