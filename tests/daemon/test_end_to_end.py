"""The main job on real input: archives that real tools wrote, moved into the spool of the real program, are in a real
registry, as `verify` and skopeo read it.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from support.images import archives
from support.images import real_archives as tools
from support.programs.running_spooler import RunningSpooler, Spool, program
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader, skopeo_copy, skopeo_inspect

OUTER_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".tgz": lambda content: gzip.compress(content, 1),
    ".tar.gz": lambda content: gzip.compress(content[:1000]) + gzip.compress(content[1000:], 1),
    ".tar.zst": zstandard.compress,
    ".tar.xz": lambda content: lzma.compress(content, preset=0),
    ".tar.bz2": lambda content: bz2.compress(content, 1),
}
KILL_ROUNDS = 12
KILL_SEED = 20240229
KILLS_IN_A_ROW = 3
"""A file that is worked on at the fourth is held to be the cause."""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> Iterator[Spool]:
    """A spool with a spooler, for tests that keep to names of their own."""
    spool = Spool(tmp_path_factory.mktemp("served") / "spool")
    with RunningSpooler(spool, registry.url):
        yield spool


def file_name(repository: str, rest: str) -> str:
    """`repository`, as a file name spells it, and what follows it."""
    return repository.replace("/", "\\") + rest


@pytest.mark.parametrize("producer", tools.SINGLE)
def test_an_archive_of_each_tool_is_in_the_registry(producer, served, registry, repository, real_archives, tmp_path):
    name = file_name(repository, ":v1.tar")

    served.drop(name, real_archives.path(producer))
    receipt = served.receipt(name)

    image = Reader(registry).image(repository, "v1")
    assert receipt["digest"] == image.digest == skopeo_inspect(registry, repository, "v1")["Digest"]
    assert len(image.layers) == 2
    assert image.config["config"]["Cmd"] == ["/hello"]
    skopeo_copy(registry, repository, "v1", f"dir:{tmp_path / 'copy'}")


@pytest.mark.parametrize("suffix", OUTER_COMPRESSIONS)
@pytest.mark.parametrize("producer", ["podman-docker", "podman-oci"])
def test_compression_around_an_archive_changes_nothing(suffix, producer, served, registry, repository, real_archives):
    plain = real_archives.path(producer)
    served.drop(file_name(repository, ":plain.tar"), plain)
    served.drop(file_name(repository, f":packed{suffix}"), OUTER_COMPRESSIONS[suffix](plain.read_bytes()))

    receipts = [served.receipt(file_name(repository, rest)) for rest in (":plain.tar", f":packed{suffix}")]

    assert receipts[0]["digest"] == receipts[1]["digest"] == Reader(registry).image(repository, "packed").digest


def test_any_other_file_becomes_an_image_that_holds_it(served, registry, repository):
    content = os.urandom(3 << 20)

    served.drop(file_name(repository, ":v1.bin"), content)
    served.receipt(file_name(repository, ":v1.bin"))

    image = Reader(registry).image(repository, "v1.bin")
    assert Reader(registry).unpacked(repository, image.layers[0]) == content
    assert served.waiting == []


@pytest.mark.parametrize("pack", [bytes, OUTER_COMPRESSIONS[".tgz"]], ids=["plain", "gzip"])
@pytest.mark.parametrize("rest", [":v1", ":v1.img"])
def test_an_image_archive_whose_suffix_was_forgotten_is_the_image(pack, rest, served, registry, repository):
    name = file_name(repository, rest)
    served.drop(name, pack(archives.docker_legacy(archives.Image())))
    receipt = served.receipt(name)
    assert receipt["reference"] == f"{repository}{rest}"
    assert Reader(registry).image(repository, rest[1:]).diff_ids == tuple(archives.Image().diff_ids)


def test_a_tar_of_something_else_is_pushed_as_it_is(served, registry, repository):
    name, content = file_name(repository, ":sources"), archives.make_tar([("manifest.json", b"{}"), ("src/a.c", b"")])
    served.drop(name, content)
    served.receipt(name)
    (layer,) = Reader(registry).image(repository, "sources").layers
    assert Reader(registry).unpacked(repository, layer) == content


def test_a_tar_that_is_packed_in_an_unknown_way_fails_with_the_reason(served):
    served.drop("app.tar.lz4", b"\x04\x22\x4d\x18")
    assert "'.tar.lz4' is no ending that can be read" in served.failure("app.tar.lz4")["error"]


def test_what_was_pushed_is_deleted_by_its_name(served, registry, repository):
    for tag in ("one", "two"):
        served.drop(file_name(repository, f":{tag}"), b"the same content")
        served.receipt(file_name(repository, f":{tag}"))
    assert Reader(registry).tags(repository) == ["one", "two"]

    served.drop(file_name(repository, ":one!"), b"")
    receipt = served.receipt(file_name(repository, ":one!"))

    assert receipt["action"] == "delete"
    assert Reader(registry).tags(repository) == ["two"]
    assert Reader(registry).image(repository, "two").layers


def test_a_bundle_goes_where_the_archive_says(make_registry, spool, real_archives):
    registry = make_registry()
    with RunningSpooler(spool, registry.url):
        spool.drop("@several.tar", real_archives.path(tools.SEVERAL))
        receipt = spool.receipt("@several.tar")

    digests = {tag: Reader(registry).image("catalog/app", tag).digest for tag in ("v1", "v2")}
    assert {image["reference"]: image["digest"] for image in receipt["images"]} == {
        f"catalog/app:{tag}": digest for tag, digest in digests.items()
    }
    assert digests["v1"] != digests["v2"]


def test_the_image_of_several_is_chosen_by_the_name_of_the_file(make_registry, spool, real_archives):
    registry = make_registry()
    with RunningSpooler(spool, registry.url):
        spool.drop(r"catalog\app:v2.tar", real_archives.path(tools.SEVERAL))
        spool.receipt(r"catalog\app:v2.tar")
        spool.drop(r"catalog\app:v3.tar", real_archives.path(tools.SEVERAL))
        failure = spool.failure(r"catalog\app:v3.tar")

    assert Reader(registry).tags("catalog/app") == ["v2"]
    assert "catalog/app:v1" in failure["error"]
    assert "catalog/app:v2" in failure["error"]


def test_a_bad_archive_fails_with_its_reason_and_keeps_every_byte(served, registry, repository, real_archives):
    content = real_archives.path("podman-docker").read_bytes()[: 1 << 20]
    name = file_name(repository, ":v1.tar")

    served.drop(name, content)
    failure = served.failure(name)

    assert failure["file"] == name
    assert failure["reference"] == f"{repository}:v1"
    assert failure["error"]
    assert (served.folder / ".failed" / name).read_bytes() == content
    assert Reader(registry).tags(repository) == []

    # A retry by hand, after the archive has been mended.
    served.drop(name, real_archives.path("podman-docker"))
    assert served.receipt_after_failure(name)["digest"] == Reader(registry).image(repository, "v1").digest


def test_a_name_that_is_no_reference_fails_with_the_reason(served):
    served.drop("UpperCase:v1.tar", b"whatever")

    assert "upper-case" in served.failure("UpperCase:v1.tar")["error"]


def test_what_was_there_before_the_start_is_pushed_but_no_unfinished_file(spool, registry, repository):
    spool.drop(file_name(repository, ":before.txt"), b"before")
    (spool.folder / file_name(repository, ":unfinished.txt~")).write_bytes(b"half")

    with RunningSpooler(spool, registry.url):
        spool.receipt(file_name(repository, ":before.txt"))

    assert Reader(registry).tags(repository) == ["before.txt"]
    assert spool.waiting == [file_name(repository, ":unfinished.txt~")]


def test_files_wait_for_a_registry_that_is_down(make_registry, spool):
    registry = make_registry()
    registry.stop()
    with RunningSpooler(spool, registry.url, "--tries", "1") as spooler:
        for number in range(5):
            spool.drop(f"waiting-{number}.txt", f"file {number}".encode())
        spooler.wait_for_log("deferred waiting-")
        assert len(spool.waiting) == 5

        registry.start()
        receipts = [spool.receipt(f"waiting-{number}.txt") for number in range(5)]

    assert any(receipt["attempts"] > 1 for receipt in receipts)
    for number, receipt in enumerate(receipts):
        assert Reader(registry).image(f"waiting-{number}").digest == receipt["digest"]


def test_settings_that_cannot_be_read_are_told_of_at_the_start_and_may_come_later(make_registry, spool, tmp_path):
    registry = make_registry(tls=True, inmemory=True)
    certificate, config = tmp_path / "later.pem", tmp_path / "config.json"
    config.write_text("{")
    flags = ["--certificate", certificate, "--docker-config", config, "--tries", "1"]
    spool.drop("app.txt", b"content")
    with RunningSpooler(spool, registry.url, *map(str, flags)) as running:
        running.wait_for_log(rf"WARNING the certificate '{certificate}' cannot be read: No such file or directory$")
        running.wait_for_log(rf"WARNING the credentials in '{config}' cannot be used: it is not valid JSON$")
        running.wait_for_log(rf"deferred app\.txt .*: the credentials in '{config}' cannot be used")
        config.write_text("{}")
        certificate.write_bytes(registry.certificate.read_bytes())
        assert spool.receipt("app.txt")["digest"]


def test_a_stop_finishes_what_fits_into_its_grace(spool, make_registry):
    registry = make_registry()
    with RunningSpooler(spool, registry.url) as spooler:
        spool.drop("large.bin", os.urandom(64 << 20))
        spooler.wait_for_log("large")

        assert spooler.terminate() == 0

    assert spool.waiting == []
    assert Reader(registry).image("large").layers[0].unpacked_size == 64 << 20


def test_a_stop_without_grace_abandons_its_uploads_at_the_registry_too(spool, make_registry):
    registry = make_registry()
    with RunningSpooler(spool, registry.url, "--shutdown-grace", "0") as spooler:
        spool.drop("large.bin", os.urandom(256 << 20))
        registry.log.wait_for('"PATCH /v2/large/', 30)

        assert spooler.terminate() == 0

    assert spool.waiting == ["large.bin"]
    assert Reader(registry).tags("large") == []
    # A session whose chunk was on the way keeps its state until the registry purges dead sessions.
    assert '"DELETE /v2/large/blobs/uploads/' in str(registry.log)

    with RunningSpooler(spool, registry.url):
        spool.receipt("large.bin")
    assert Reader(registry).image("large").layers[0].unpacked_size == 256 << 20


def test_nothing_is_lost_by_kills_at_random_instants(spool, make_registry, real_archives):
    chance = random.Random(KILL_SEED)
    registry = make_registry()
    contents = {f"round-{number}": chance.randbytes(chance.randrange(1, 6 << 20)) for number in range(KILL_ROUNDS)}
    spooler = RunningSpooler(spool, registry.url)

    for number, (stem, content) in enumerate(contents.items()):
        spool.drop(f"{stem}.bin", content)
        spool.drop(f"archive:{number}.tar", real_archives.path("podman-docker"))
        spooler.launch()
        time.sleep(chance.uniform(0.0, 1.5))  # the instant of the kill is the point
        spooler.kill()
        if number % KILLS_IN_A_ROW == KILLS_IN_A_ROW - 1:
            with spooler:
                spool.wait_until(lambda: not spool.waiting)
    digests = {stem: spool.receipt(f"{stem}.bin")["digest"] for stem in contents}
    archives = {spool.receipt(f"archive:{number}.tar")["digest"] for number in range(KILL_ROUNDS)}

    reader = Reader(registry)
    for stem, content in contents.items():
        image = reader.image(stem)
        assert image.digest == digests[stem]
        assert reader.unpacked(stem, image.layers[0]) == content
        assert reader.tags(stem) == ["latest"]
    assert archives == {reader.image("archive", str(number)).digest for number in range(KILL_ROUNDS)}
    assert len(archives) == 1
    assert spool.waiting == []
    left = [path.name for path in spool.folder.glob(".work/**/*") if path.is_file() and path.stat().st_size]
    assert left == [".reserve"]
    assert os.listdir(spool.folder / ".failed") == []


def test_the_log_says_once_that_a_registry_is_down(make_registry, spool):
    registry = make_registry()
    registry.stop()
    with RunningSpooler(spool, registry.url, "--tries", "3") as spooler:
        spool.drop("waiting.txt", b"content")
        spooler.wait_for_log("deferred waiting")
        registry.start()
        spool.receipt("waiting.txt")

    assert spooler.log is not None
    about = [line.split()[2] for line in spooler.log if "waiting.txt" in line or "cannot be reached" in line]
    assert about == ["pushing", "deferred", "pushed"]


@pytest.mark.parametrize("flags", [["-v"], ["-vv"]])
def test_more_is_said_for_who_looks_for_trouble(make_registry, spool, flags):
    """Every attempt; request by request only for debugging."""
    own = make_registry()
    own.stop()
    spool.drop("waits.txt", b"patience")
    with RunningSpooler(spool, own.url, "--tries", "2", *flags) as running:
        running.wait_for_log(r"deferred waits\.txt → waits:latest: .*; next try (in|now)")
        own.start()
        running.wait_for_log(r"DEBUG   pushing waits\.txt")
        running.terminate()

    told = [line for line in running.log or [] if "trying again in" in line]
    assert (flags == ["-vv"]) == bool(told)


def test_a_log_file_that_cannot_be_opened_is_one_line(tmp_path):
    done = subprocess.run(
        [program("registry-spooler"), "--log", tmp_path / "missing" / "log"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No such file or directory" in line


def test_an_interrupt_is_a_clean_stop_too(spool, registry):
    with RunningSpooler(spool, registry.url) as spooler:
        spooler.process.send_signal(signal.SIGINT)

        assert spooler.ended() == 0
