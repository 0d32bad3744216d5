"""`missing` and `receive`: sending only what the registry lacks."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from typing import Any

import pytest

from support.images.posted import Poster, layer_tar, packed, sha256
from support.registries.verify import Reader

LAYERS = [layer_tar({"hello": b"hello\n"}), layer_tar({"data": os.urandom(2_000_000)})]
UNKNOWN = sha256(b"nobody has this")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
"""As in a receipt of the spool."""


@pytest.fixture
def archive(client, poster, repository) -> bytes:
    """An OCI archive of an image in the test's own repository."""
    poster.image(LAYERS, tag="v1")
    return client.run("pull", "--format", "oci", f"{repository}:v1").stdout


def parts(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def packed_up(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def digests(files: dict[str, bytes]) -> list[str]:
    return [f"sha256:{path.rpartition('/')[2]}" for path in files if path.startswith("blobs/")]


def lines(found: list[str]) -> bytes:
    return "".join(f"{digest}\n" for digest in found).encode()


def receipt_of(stdout: bytes) -> dict[str, Any]:
    receipt = json.loads(stdout)
    for name in ("started", "finished"):
        assert re.fullmatch(TIME, receipt.pop(name))
    assert receipt.pop("seconds")
    return dict(receipt)


def test_what_is_missing_comes_in_the_order_of_the_questions(client, poster, repository):
    known = poster.blob(b"known", "text/plain")["digest"]
    unknown = [sha256(str(number).encode()) for number in range(20)]

    asked = [*unknown[:10], known, *unknown[10:]]

    assert client.lines("missing", "--", repository, stdin=lines(asked)) == unknown


def test_a_program_gets_the_sizes_of_what_is_there(client, poster, repository):
    known = poster.blob(b"known", "text/plain")["digest"]

    assert client.json("missing", "--json", repository, stdin=lines([UNKNOWN, known])) == {
        "missing": [UNKNOWN],
        "present": {known: 5},
    }


def test_nothing_asked_nothing_missing(client, repository):
    assert client.lines("missing", repository) == []
    assert client.lines("missing", repository, stdin=b"\n\n") == []


def test_what_is_no_digest_is_wrong_usage(client, repository):
    error = client.error("missing", repository, stdin=lines([UNKNOWN]) + b"sha256:abc\n", code=2)

    assert error.startswith("line 2 of standard input is not a digest: 'sha256:abc'")


def test_what_other_repositories_hold_is_mounted(client, poster, registry, repository):
    known = poster.blob(b"known to a neighbour", "text/plain")["digest"]
    poster.image(LAYERS, tag="latest")  # a repository without an image is in no catalog

    target = f"{repository}/other"
    assert client.lines("missing", target, stdin=lines([known])) == [known]
    assert client.lines("missing", "--mount", target, stdin=lines([known, UNKNOWN])) == [UNKNOWN]
    assert Reader(registry).blob(target, known) == b"known to a neighbour"


def test_an_archive_is_received(client, archive, registry, repository):
    done = client.run("receive", f"{repository}/copy:v1", stdin=archive)

    image = Reader(registry).image(f"{repository}/copy", "v1")
    assert image == Reader(registry).image(repository, "v1")
    assert receipt_of(done.stdout) == {
        "reference": f"{repository}/copy:v1",
        "digest": image.digest,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "size_bytes": len(image.content) + sum(layer.size for layer in image.layers) + image.manifest["config"]["size"],
        "platforms": ["linux/amd64"],
        "missing": [],
        "referrers": 0,
        "left_out": [],
        "blobs": {"uploaded": 3, "existing": 0, "mounted": 0},
        "uploaded_bytes": sum(layer.size for layer in image.layers) + image.manifest["config"]["size"],
        "attempts": 1,
    }


def test_progress_goes_to_standard_error_as_json(client, archive, repository):
    done = client.run("receive", f"{repository}/copy", stdin=archive)

    *_, last = (json.loads(line) for line in done.stderr.splitlines())
    assert last["progress"]["blobs_uploaded"] == 3
    assert last["progress"]["bytes_done"] >= len(packed(LAYERS[1]))


def test_a_thin_archive_is_enough(client, archive, registry, repository):
    files = parts(archive)
    large = f"blobs/sha256/{sha256(packed(LAYERS[1]))[7:]}"
    target = f"{repository}/copy"
    first = client.json("receive", "--blobs", "--", target, stdin=packed_up({large: files.pop(large)}))

    assert first["blobs"] == {"uploaded": 1, "existing": 0, "mounted": 0}
    assert client.lines("missing", target, stdin=lines([f"sha256:{large[-64:]}"])) == []
    receipt = client.json("receive", f"{target}:v1", stdin=packed_up(files))
    assert receipt["blobs"] == {"uploaded": 2, "existing": 1, "mounted": 0}
    assert Reader(registry).image(target, "v1") == Reader(registry).image(repository, "v1")


def test_too_thin_an_archive_tags_nothing(client, archive, registry, repository):
    files = parts(archive)
    del files[f"blobs/sha256/{sha256(packed(LAYERS[1]))[7:]}"]

    client.run("receive", f"{repository}/copy:v1", stdin=packed_up(files), code=1)

    assert Reader(registry).tags(f"{repository}/copy") == []


def test_after_a_cut_only_the_rest_is_missing(client, archive, registry, repository):
    files = parts(archive)
    large = sha256(packed(LAYERS[1]))
    cut = archive[: archive.index(files[f"blobs/sha256/{large[7:]}"]) + 1_000_000]
    target = f"{repository}/copy"

    done = client.run("receive", f"{target}:v1", stdin=cut, code=1)

    assert done.stdout == b""
    assert Reader(registry).tags(target) == []
    blobs = [digest for digest in digests(files) if digest != Reader(registry).image(repository, "v1").digest]
    small = sha256(packed(LAYERS[0]))
    left = client.lines("missing", target, stdin=lines(blobs))
    assert large in left
    assert small not in left


def test_a_blob_that_is_not_what_its_name_says_is_refused(client, repository, registry):
    false = {f"blobs/sha256/{UNKNOWN[7:]}": b"something else"}

    client.run("receive", "--blobs", repository, stdin=packed_up(false), code=1)

    assert client.lines("missing", repository, stdin=lines([UNKNOWN])) == [UNKNOWN]


def test_from_afar_the_length_ends_the_input(client, archive, registry, repository):
    length = str(len(archive))
    process = client.start(
        "--remote", "--stdin-bytes", length, "receive", f"{repository}/copy:v1", stdin=subprocess.PIPE
    )
    process.stdin.write(archive)
    process.stdin.flush()

    receipt = json.loads(process.stdout.readline())  # the input has not been closed
    process.stdin.close()
    process.wait(30)
    close(process)
    assert receipt["digest"] == Reader(registry).image(f"{repository}/copy", "v1").digest


def test_from_afar_an_error_is_a_line_of_json(client, repository):
    process = client.start("--remote", "--stdin-bytes", "0", "inspect", "--", repository, stdin=subprocess.PIPE)

    assert process.wait(30) == 3
    error, last_word = map(json.loads, process.stderr.read().splitlines()[-2:])
    assert last_word == {"done": True, "stdout_bytes": 0, "code": 3}
    assert (error["kind"], error["temporary"]) == ("NotFound", False)
    assert "404" in error["error"]
    close(process)


def test_from_afar_a_caller_that_goes_ends_the_command(client, archive, repository):
    length = str(len(archive))
    process = client.start("--remote", "--stdin-bytes", length, "receive", f"{repository}/copy", stdin=subprocess.PIPE)
    process.stdin.write(archive[: len(archive) // 2])
    process.stdin.close()

    assert process.wait(30) == 1
    assert process.stdout.read() == b""
    close(process)


def close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def test_an_image_is_pushed_to_a_tag(client, poster: Poster, repository):
    for command in (("push", f"{repository}@{UNKNOWN}", "file"), ("receive", f"{repository}@{UNKNOWN}")):
        assert "push to a tag" in client.error(*command, code=2)
