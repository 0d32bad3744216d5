"""The recipes of docs/recipes.md run as they stand there, with an engine that has built already."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml

from recipe_page import DOCKER, NODES, custom_build, deployment, recipe
from support.cluster.apiserver import ApiServer
from support.cluster.deploy_tools import SKAFFOLD, TILT
from support.cluster.terminal import Terminal
from support.images import archives
from support.images.archive_parts import Image, layer
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader


@pytest.fixture
def developer(tmp_path: Path, kubeconfig: Path, api: ApiServer, repository: str, registry: RunningRegistry) -> Terminal:
    """Somebody whose docker has built an image, for a cluster whose nodes pull from the registry's own address."""
    api.registry = registry.url
    api.environment["REGISTRY_SPOOLER_PULL_HOST"] = registry.host
    api.health_port = 1  # nobody's
    api.workloads.config_map = {"data": {"localRegistryHosting.v1": f"host: {registry.host}"}}
    api.workloads.add("deployments", "web")
    (tmp_path / "saved.tar").write_bytes(archives.podman_docker(Image(layers=(layer(repository),))))
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    terminal = Terminal(tmp_path, kubeconfig)
    return Terminal(tmp_path, kubeconfig, path=f"{tmp_path}:{terminal.path}")


async def test_every_recipe_ends_in_a_running_pod(
    developer: Terminal, api: ApiServer, registry: RunningRegistry
) -> None:
    (developer.folder / "Makefile").write_text(recipe("A Makefile", "make"))
    github, gitlab = (yaml.safe_load(recipe(section, "yaml")) for section in ("GitHub Actions", "GitLab CI"))
    scripts = {
        "dev": "make deploy",
        "a1": f"GITHUB_SHA=a1\n{github['jobs']['deploy']['steps'][-1]['run']}",
        "b2": "\n".join(["CI_COMMIT_SHORT_SHA=b2", *gitlab["deploy"]["script"]]),
    }
    for tag, script in scripts.items():
        done = await developer.run("bash", "-euo", "pipefail", "-c", script)
        assert done.lines[-1].startswith(f"{registry.host}/app:{tag}@sha256:")
        assert done.lines[-1] == api.workloads.image("deployments/web", "web")


async def test_skaffold_finds_what_its_build_has_pushed(
    developer: Terminal, registry: RunningRegistry, repository: str
) -> None:
    """Without Skaffold here, its part is played: the command's environment, and the question for the digest."""
    text = recipe("Skaffold", "yaml").replace(f"{NODES}/app", f"{registry.host}/{repository}")
    (developer.folder / "skaffold.yaml").write_text(text)
    (artifact,) = yaml.safe_load(text)["build"]["artifacts"]

    if program := SKAFFOLD.find():
        flags = ("--file-output=built.json", "--interactive=false", "--update-check=false", "--cache-artifacts=false")
        await developer.run(program, "build", *flags)
        (built,) = json.loads((developer.folder / "built.json").read_text())["builds"]
        reference = built["tag"]
    else:
        reference = f"{artifact['image']}:v1"
        environment = (f"IMAGE={reference}", "PUSH_IMAGE=true", f"BUILD_CONTEXT={developer.folder}")
        await developer.run("env", *environment, "sh", "-c", artifact["custom"]["buildCommand"])

    name, _, digest = reference.partition("@")
    tag = name.removeprefix(f"{registry.host}/{repository}:")
    pushed = await asyncio.to_thread(Reader(registry).image, repository, tag)
    assert digest in ("", pushed.digest)


async def test_tilt_gets_the_reference_of_what_its_build_has_pushed(
    developer: Terminal, registry: RunningRegistry
) -> None:
    """Tilt starts a build only where it can deploy too, so here it reads the file, if there is one, and we run it."""
    text = recipe("Tilt", "starlark")
    (developer.folder / "Tiltfile").write_text(f"allow_k8s_contexts('test')\n{text}")
    (developer.folder / "web.yaml").write_text(yaml.safe_dump(deployment("web", "app")))
    call = custom_build(text)

    if program := TILT.find():
        done = await developer.run(program, "alpha", "tiltfile-result")
        (target,) = (target for manifest in done.json["Manifests"] for target in manifest["ImageTargets"])
        assert call["command"] in json.dumps(target)
    await developer.run("sh", "-c", call["command"])

    assert call["skips_local_docker"]
    pushed = (developer.folder / call["outputs_image_ref_to"]).read_text()
    assert re.fullmatch(rf"{registry.host}/app:tilt@sha256:[0-9a-f]{{64}}\n", pushed)
