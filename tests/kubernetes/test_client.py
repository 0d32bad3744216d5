"""The Python client: its documented examples run, and it imports where there is no Linux."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import readme
from registry_spooler import client as client_module
from registry_spooler.client import Receipt, SpoolerClient
from registry_spooler.kubernetes.cluster_errors import RemoteError
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from support.cluster.apiserver import ApiServer
from support.images import archives
from support.images.archive_parts import Image, layer
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

NOT_ON_WINDOWS = ("asyncinotify", "prometheus_client", "fcntl", "resource", "pwd", "grp", "termios")


@pytest.fixture
def pod(api: ApiServer, spool: Path, registry: RunningRegistry) -> Iterator[ApiServer]:
    with RunningSpooler(Spool(spool), registry.url) as spooler:
        api.registry = registry.url
        api.health_port = int(spooler.health_url.rpartition(":")[2])
        yield api


@pytest.fixture
def archive(tmp_path: Path, repository: str) -> Path:
    path = tmp_path / "app.tar"
    path.write_bytes(archives.podman_docker(Image(layers=(layer(repository),))))
    return path


@pytest.fixture
async def client(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SpoolerClient]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with SpoolerClient.connect(kubeconfig=kubeconfig) as connected:
        yield connected


async def test_the_life_of_an_image(
    client: SpoolerClient, pod: ApiServer, archive: Path, repository: str, tmp_path: Path, registry: RunningRegistry
) -> None:
    reference = Reference(repository, "1")
    progress = Progress()
    receipt = await client.push(archive, reference, progress=progress)
    assert Reader(registry).image(repository, "1").digest == str(receipt.digest)
    assert (reference, 2) == (receipt.image.reference, progress.blobs_uploaded)
    assert repository in await client.repositories()
    assert reference in await client.images()
    assert ("1",) == await client.tags(repository)
    assert str(receipt.digest) == str((await client.inspect(reference)).digest)
    size = await client.pull(reference, tmp_path / "back.tar")
    assert size == (tmp_path / "back.tar").stat().st_size
    assert receipt.digest == (await client.push(tmp_path / "back.tar", Reference(repository, "2"))).digest
    assert receipt.digest == await client.delete(reference)
    assert await client.delete(reference) is None
    assert ("2",) == await client.tags(repository)


async def test_the_life_of_a_spool_file(client: SpoolerClient, pod: ApiServer, archive: Path, repository: str) -> None:
    name = f"{repository}:1.tar".replace("/", "\\")
    published = await client.publish(archive, name)
    receipt = await client.wait(published)
    assert Reference(repository, "1") == receipt.image.reference
    assert receipt.digest == (await client.wait(name)).digest
    assert receipt == Receipt.from_json(receipt.to_json())
    assert receipt.to_json()["finished"].endswith("Z")
    assert (await client.status()).is_ready


async def test_a_spool_file_that_fails(client: SpoolerClient, pod: ApiServer, tmp_path: Path, repository: str) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    name = f"{repository}.tar".replace("/", "\\")
    with pytest.raises(RemoteError):
        await client.wait(await client.publish(tmp_path / "bad.tar", name))
    assert [name] == [record.name for record in await client.failed()]
    await client.retry(name)
    with pytest.raises(RemoteError):
        await client.wait(name)


async def test_what_is_not_there(client: SpoolerClient, pod: ApiServer) -> None:
    with pytest.raises(RemoteError) as caught:
        await client.tags("no-such/repository")
    assert ("NotFound", 3) == (caught.value.kind, caught.value.exit_code)


def examples() -> list[str]:
    """The code of the module's docstring, and every Python block of the pages."""
    docstring = ast.get_docstring(ast.parse(inspect.getsource(client_module))) or ""
    indented = re.findall(r"(?:^    .*\n)+", docstring, re.MULTILINE)
    fenced = re.findall(r"```python\n(.*?)```", readme.all_text(), re.DOTALL)
    assert fenced
    return [textwrap.dedent(code) for code in (*indented, *fenced)]


@pytest.mark.parametrize("code", examples())
async def test_the_documented_examples_run(
    code: str,
    pod: ApiServer,
    archive: Path,
    kubeconfig: Path,
    monkeypatch: pytest.MonkeyPatch,
    registry: RunningRegistry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("XDG_CACHE_HOME", str(archive.parent / "cache"))
    monkeypatch.chdir(archive.parent)
    names = {"SpoolerClient": SpoolerClient, "Reference": Reference, "Path": Path}
    compiled = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)  # noqa: S307 - our own documentation
    if inspect.iscoroutine(result):
        await result
    digest = Reader(registry).image("catalog/app", "v2").digest
    assert digest in capsys.readouterr().out


def test_it_imports_without_what_only_linux_has() -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in NOT_ON_WINDOWS)
    code = f"import sys; {blocked}; import registry_spooler.client, registry_spooler.cli.kubectl.program"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_help_does_not_load_what_is_slow() -> None:
    code = (
        "import sys; import registry_spooler.cli.kubectl.program; "
        "print(sorted({'rich', 'kubernetes_asyncio', 'aiohttp', 'isal'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert b"[]" == shown.stdout.strip()


def test_every_public_name_is_typed() -> None:
    for name, method in inspect.getmembers(SpoolerClient, inspect.isfunction):
        if not name.startswith("_"):
            assert "return" in get_type_hints(method), name
    assert tuple[ImageResult, ...] == get_type_hints(Receipt)["images"]
