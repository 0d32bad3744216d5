"""The recipes of docs/recipes.md run as they stand there, with an engine that has built already."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import archives
from apiserver import ApiServer
from archive_parts import Image, layer
from running_registry import RunningRegistry
from terminal import Terminal

PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text()


async def test_every_recipe_ends_in_a_running_pod(
    tmp_path: Path, kubeconfig: Path, api: ApiServer, repository: str, registry: RunningRegistry
) -> None:
    api.registry = registry.url
    api.workloads.config_map = {"data": {"localRegistryHosting.v1": "host: nodes.example:5000"}}
    api.workloads.add("deployments", "web")
    (tmp_path / "saved.tar").write_bytes(archives.podman_docker(Image(layers=(layer(repository),))))
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\ncase $1 in build) ;; image) echo 1 ;; *) exec cat saved.tar ;; esac\n")
    docker.chmod(0o755)
    (makefile,) = re.findall(r"```make\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "Makefile").write_text(makefile)
    github, gitlab = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    scripts = {
        "dev": "make deploy",
        "a1": f"GITHUB_SHA=a1\n{github['jobs']['deploy']['steps'][-1]['run']}",
        "b2": "\n".join(["CI_COMMIT_SHORT_SHA=b2", *gitlab["deploy"]["script"]]),
    }
    terminal = Terminal(tmp_path, kubeconfig)
    terminal = Terminal(tmp_path, kubeconfig, path=f"{tmp_path}:{terminal.path}")
    for tag, script in scripts.items():
        done = await terminal.run("bash", "-euo", "pipefail", "-c", script)
        assert done.lines[-1].startswith(f"nodes.example:5000/app:{tag}@sha256:")
        assert done.lines[-1] == api.workloads.image("deployments/web", "web")
