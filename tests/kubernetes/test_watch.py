"""`kubectl spool push --watch`: again after each change, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from support.cluster.apiserver import ApiServer
from support.cluster.terminal import Terminal
from support.images import archives
from support.images.archive_parts import Image, layer
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader


async def test_files_and_images_are_pushed_again_when_they_change(
    tmp_path: Path, kubeconfig: Path, api: ApiServer, repository: str, registry: RunningRegistry
) -> None:
    api.has_daemon = False  # the settings come with the exec
    api.registry = registry.url
    api.workloads.config_map = {"data": {"localRegistryHosting.v1": "host: nodes.example:5000"}}
    api.workloads.add("deployments", "web")
    first, second = (archives.podman_docker(Image(layers=(layer(f"{repository}/{at}"),))) for at in (1, 2))
    saved, number, docker = tmp_path / "saved", tmp_path / "id", tmp_path / "docker"
    number.write_text("1")
    saved.write_bytes(first)
    docker.write_text(f'#!/bin/sh\n[ "$1" = image ] && exec cat {number}\nexec cat {saved}\n')
    docker.chmod(0o755)
    terminal = Terminal(tmp_path, kubeconfig)
    terminal = Terminal(tmp_path, kubeconfig, path=f"{tmp_path}:{terminal.path}")

    command = ("push", "docker:app", f"{repository}:1", "--set", "deploy/web", "--watch", "--quiet")
    process = await terminal.start(["kubectl-spool", *command])
    assert process.stdout is not None
    assert process.stderr is not None
    pushed = (await process.stdout.readline()).decode().strip()
    assert pushed == f"nodes.example:5000/{repository}:1@{Reader(registry).image(repository, '1').digest}"

    saved.write_bytes(b"no archive")
    number.write_text("2")
    assert b"kubectl spool: " in await process.stderr.readline()  # told, and it goes on
    saved.write_bytes(second)
    number.write_text("3")
    again = (await process.stdout.readline()).decode().strip()
    assert again == f"nodes.example:5000/{repository}:1@{Reader(registry).image(repository, '1').digest}"
    assert (True, again) == (pushed != again, api.workloads.image("deployments/web", "web"))

    process.send_signal(signal.SIGINT)
    assert -signal.SIGINT == await process.wait()  # a shell shows 130
    await process.communicate()


async def test_a_file_that_changes(
    tmp_path: Path, kubeconfig: Path, api: ApiServer, repository: str, registry: RunningRegistry
) -> None:
    api.registry = registry.url
    terminal, path = Terminal(tmp_path, kubeconfig), tmp_path / "app.tar"
    path.write_bytes(archives.podman_docker(Image(layers=(layer(f"{repository}/1"),))))
    process = await terminal.start(["kubectl-spool", "push", "app.tar", f"{repository}:1", "--watch", "--quiet"])
    assert process.stdout is not None
    first = await process.stdout.readline()
    path.unlink()
    path.write_bytes(archives.podman_docker(Image(layers=(layer(f"{repository}/2"),))))
    second = await process.stdout.readline()
    assert (True, second.decode().strip()) == (first != second, Reader(registry).image(repository, "1").digest)
    process.send_signal(signal.SIGINT)
    assert (b"", b"") == await asyncio.wait_for(process.communicate(), 60)


async def test_what_comes_by_once_cannot_be_watched(tmp_path: Path, kubeconfig: Path) -> None:
    refused = await Terminal(tmp_path, kubeconfig).spool("push", "-", "app:1", "--watch", code=2)
    assert "--watch wants files or names of images; a pipe cannot be read again" in refused.stderr
