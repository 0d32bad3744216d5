"""What a shell is offered for the words of `kubectl spool`."""

from __future__ import annotations

from pathlib import Path

from support.cluster.apiserver import ApiServer
from support.cluster.terminal import Terminal
from support.images import archives
from support.images.archive_parts import Image, layer
from support.registries.running_registry import RunningRegistry


async def test_images_files_tags_and_workloads_are_completed(
    tmp_path: Path, kubeconfig: Path, api: ApiServer, repository: str, registry: RunningRegistry
) -> None:
    api.registry = registry.url
    api.workloads.add("deployments", "web")
    (tmp_path / "app.tar").write_bytes(archives.podman_docker(Image(layers=(layer(repository),))))
    (tmp_path / "podman").write_text("#!/bin/sh\n[ $1 = images ] && printf 'app:v1\\n<none>:<none>\\n'\n")
    (tmp_path / "podman").chmod(0o755)
    terminal = Terminal(tmp_path, kubeconfig)
    terminal = Terminal(tmp_path, kubeconfig, path=f"{tmp_path}:{terminal.path}")
    await terminal.spool("push", "app.tar", f"{repository}:1", "--quiet")

    async def offered(*words: str) -> list[str]:
        return (await terminal.run("kubectl_complete-spool", *words)).lines

    assert ["app:v1", "app.tar", ":0"] == await offered("push", "app")
    assert ["app:v1", "app.tar", ":0"] == await offered("load", "app")
    assert [f"{repository}:1", ":0"] == await offered("pull", f"{repository}:")
    assert ["deployment/", ":0"] == await offered("push", "app.tar", "--set", "dep")
    assert ["deploy/web", ":0"] == await offered("push", "app.tar", "--set", "deploy/")
    assert [":0"] == await offered("push", "app.tar", "--set-namespace", "shop", "--set", "deploy/")
    assert [":0"] == await offered("tags", "--kubeconfig", "/no/such/file", "x")
