"""A pull over connections that break, and from registries that send something else."""

from __future__ import annotations

import io
import os
import tarfile

import anyio.to_thread
import pytest

from support.images.posted import layer_tar, packed, sha256
from support.programs.command_client import Client
from support.registries.faultproxy import Fault, running_proxy
from support.registries.verify import Registry

LAYER = layer_tar({"data": os.urandom(5_000_000)})
BLOB = packed(LAYER)
DIGEST = sha256(BLOB)
UNKNOWN = b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'


class Behind:
    """The registry, reached by way of the proxy."""

    certificate = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.host = url.partition("://")[2]


@pytest.fixture
def image(poster, repository) -> str:
    poster.image([LAYER], tag="latest")
    return str(repository)


async def run(url: str, tmp_path, *arguments: str, code: int = 0):
    client = Client(Behind(url), tmp_path)
    return await anyio.to_thread.run_sync(lambda: client.run(*arguments, code=code))


def layer_of(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        return tar.extractfile(f"{DIGEST[7:]}.tar.gz").read()


@pytest.mark.parametrize("breaks", [1, 4])
async def test_a_get_that_breaks_goes_on_where_it_broke(registry: Registry, image, tmp_path, breaks):
    cut = Fault(method="GET", path=DIGEST, times=breaks, cut_answer_after=1_000_000)
    async with running_proxy(registry.host, cut) as proxy:
        done = await run(proxy.url, tmp_path, "pull", image)

    assert layer_of(done.stdout) == BLOB
    ranges = [seen.headers.get("range") for seen in proxy.seen if DIGEST in seen.target]
    assert len(ranges) == breaks + 1
    assert ranges[0] is None
    starts = [int(value.removeprefix("bytes=").removesuffix("-")) for value in ranges[1:] if value]
    assert starts == sorted(set(starts))
    assert starts[0] > 0


async def test_a_registry_without_ranges_sends_it_all_again(registry: Registry, image, tmp_path):
    def whole(status, headers):
        return status, [(name, value) for name, value in headers if name.lower() != "accept-ranges"]

    cut = Fault(method="GET", path=DIGEST, cut_answer_after=2_000_000)
    ignores_range = Fault(method="GET", path=DIGEST, answer=(200, [("Content-Type", "x/y")], BLOB), rewrite=whole)
    async with running_proxy(registry.host, cut, ignores_range) as proxy:
        done = await run(proxy.url, tmp_path, "pull", image)

    assert layer_of(done.stdout) == BLOB


@pytest.mark.parametrize(
    "sent", [BLOB[:-1] + bytes([BLOB[-1] ^ 1]), BLOB + b"x"], ids=["one bit is wrong", "there is more"]
)
async def test_wrong_bytes_end_the_tar_without_its_end(registry: Registry, image, tmp_path, sent):
    wrong = Fault(method="GET", path=DIGEST, answer=(200, [], sent), times=100)
    async with running_proxy(registry.host, wrong) as proxy:
        done = await run(proxy.url, tmp_path, "pull", image, code=1)
        to_file = await run(proxy.url, tmp_path, "pull", image, "-o", "app.tar", code=1)

    (line,) = done.stderr.decode().splitlines()
    assert DIGEST in line
    assert not done.stdout.endswith(bytes(1024))
    assert b"manifest.json" not in done.stdout
    assert to_file.code == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_part_that_the_registry_has_lost_is_named(registry: Registry, image, tmp_path):
    gone = Fault(method="GET", path=DIGEST, answer=(404, [], b'{"errors":[{"code":"BLOB_UNKNOWN"}]}'), times=100)
    async with running_proxy(registry.host, gone) as proxy:
        done = await run(proxy.url, tmp_path, "pull", image, code=1)

    assert done.stderr.decode() == (
        f"registry-client: the registry holds {image}:latest without its part {DIGEST}; push the image again\n"
    )


async def test_a_platform_that_the_registry_lacks_is_left_out_and_named(registry, poster, repository, tmp_path):
    poster.two_platforms()
    gone = Fault(method="GET", path="manifests/sha256:", answer=(404, [], UNKNOWN), times=1, skip=1)
    async with running_proxy(registry.host, gone) as proxy:
        done = await run(proxy.url, tmp_path, "pull", repository, "--format", "oci")

    assert done.stdout.endswith(bytes(1024))
    assert done.stderr.decode().startswith("registry-client: the registry does not hold linux/arm64/v8 of it")
