"""The forge's workflow runs the commands that a developer runs, and actionlint has nothing against it."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from release import tools
from release.project import ROOT

[WORKFLOW] = (ROOT / ".github" / "workflows").iterdir()


def test_it_runs_gate_and_release() -> None:
    jobs: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}

    assert ["./dev test"] == commands["gate"]
    assert "./dev release" in commands["make"][-1]
    assert ("gate", "make") == (jobs["make"]["needs"], jobs["publish"]["needs"])


@pytest.mark.timeout(600)  # the first time it is built
def test_actionlint_accepts_it() -> None:
    actionlint = tools.find("actionlint")
    if actionlint is None:
        pytest.skip("there is neither actionlint nor Go, which would build it")

    done = subprocess.run([actionlint, "-no-color", WORKFLOW], capture_output=True, text=True, check=False)
    assert ("", 0) == (done.stdout + done.stderr, done.returncode)
