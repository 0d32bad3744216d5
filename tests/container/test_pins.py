"""The pins of the image: what pyproject.toml asks for, with hashes, and no word of where they came from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent.parent
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def pins(name: str) -> dict[str, Version]:
    content = (ROOT / "container" / name).read_text()
    found = {canonicalize_name(match[1]): Version(match[2]) for match in PIN.finditer(content)}
    assert len(re.findall(r"^\S+==", content, re.MULTILINE)) == len(found), "a pin without hashes"
    return found


def asked_for(section: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = project["project"]["dependencies"] if section == "project" else project["build-system"]["requires"]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("section", "name"), [("project", "requirements.txt"), ("build-system", "requirements-build.txt")]
)
def test_the_pins_fit_pyproject(section: str, name: str) -> None:
    pinned = pins(name)
    for requirement in asked_for(section):
        if requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"}):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_nothing_is_pinned_that_nobody_asks_for() -> None:
    """Every pin says who asked for it; somebody who has gone from pyproject.toml asks no more."""
    direct = {canonicalize_name(requirement.name) for requirement in asked_for("project")}
    content = (ROOT / "container" / "requirements.txt").read_text()
    for name, reason in re.findall(r"^(\S+)==(?:.*\n)(?:    --hash.*\n)+    # via (.*)$", content, re.MULTILINE):
        if "pyproject.toml" in reason:
            assert canonicalize_name(name) in direct


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-client.txt", "requirements-build.txt", "requirements-build.in", "lock"]
)
def test_no_index_is_named(name: str) -> None:
    content = (ROOT / "container" / name).read_text()
    assert not re.search(r"https?://|--(?:extra-)?index-url |--find-links |--trusted-host ", content)


def test_the_base_image_is_pinned_by_digest() -> None:
    content = (ROOT / "container" / "Containerfile").read_text()
    assert re.search(r"^ARG BASE=\S+:\S+@sha256:[0-9a-f]{64}$", content, re.MULTILINE)
    assert {"${BASE}"} == {line.split()[1] for line in content.splitlines() if line.startswith("FROM ")}
