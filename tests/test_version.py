"""The version is set in `registry_spooler.__version__`; what cannot read it there says the same."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

import registry_spooler

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = {
    "README.md": r"registry-spooler-(\d+(?:\.\d+)+)-amd64",
    "docs/install.md": r"registry-spooler(?:-|-chart-|:)(\d+(?:\.\d+)+)",
    "manifests/base/kustomization.yaml": r"newName: registry-spooler\n    newTag: (\S+)",
    "manifests/chart/Chart.yaml": r"(?m)^(?:appV|v)ersion: (\S+)$",
    "CHANGELOG.md": r"(?s)\A.*?\n## (\S+)",
}


def test_the_package_has_it() -> None:
    assert registry_spooler.__version__ == version("registry-spooler")


@pytest.mark.parametrize("name", WRITTEN)
def test_it_is_the_same_where_it_is_written_out(name: str) -> None:
    assert {registry_spooler.__version__} == set(re.findall(WRITTEN[name], (ROOT / name).read_text()))
