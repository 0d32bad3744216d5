"""`push`: archives and files straight into the registry, from files and pipes."""

from __future__ import annotations

import gzip
import os
import subprocess

import pytest

from posted import layer_tar
from running_spooler import program
from verify import Reader

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
    ("name", "reason"), [("nothing.tar", "No such file or directory"), (".", "it is a directory"), ("bad.tar", "")]
)
def test_what_cannot_be_pushed_tags_nothing(client, registry, repository, tmp_path, name, reason):
    (tmp_path / "bad.tar").write_bytes(b"no archive at all\n")

    assert reason in client.error("push", "--archive", repository, name, code=1)
    assert Reader(registry).tags(repository) == []


def test_a_raw_file_does_not_come_through_a_pipe(client, repository):
    assert "name the file" in client.error("push", "--raw", repository, "-", code=2)


def test_from_podman_through_a_pipe_to_skopeo(client, archive, registry, repository, tmp_path):
    """What `pull` writes is what `push` reads, with no file between them."""
    with (
        subprocess.Popen(
            [program("registry-client"), "pull", f"{repository}:v1"], env=client.variables, stdout=subprocess.PIPE
        ) as pulling,
    ):
        assert pulling.stdout is not None
        client.run("push", f"{repository}/copy", "-", stdin=pulling.stdout)

    assert Reader(registry).image(f"{repository}/copy").layers == Reader(registry).image(repository, "v1").layers
