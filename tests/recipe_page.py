"""docs/recipes.md as data, and what a recipe finds on a developer's machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs/recipes.md"
NODES = "127.0.0.1:5001"
"""The registry's address on the nodes, and at the developer's while its port is forwarded."""
DOCKER = "#!/bin/sh\ncase $1 in build) ;; image) echo 1 ;; save) exec cat saved.tar ;; *) exit 1 ;; esac\n"
"""An engine that has built already."""


def recipe(section: str, language: str) -> str:
    """The block of a section."""
    text = PAGE.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(block)


def custom_build(tiltfile: str) -> dict[str, Any]:
    """The arguments of a Tiltfile's call; such a file is Python too."""
    calls: list[dict[str, Any]] = []
    functions = {
        "custom_build": lambda name, command, **rest: calls.append({"name": name, "command": command, **rest}),
        "k8s_yaml": lambda _: None,
    }
    exec(tiltfile, functions)  # noqa: S102 - our own page
    (call,) = calls
    return call


def deployment(name: str, image: str) -> dict[str, Any]:
    """What web.yaml has."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
