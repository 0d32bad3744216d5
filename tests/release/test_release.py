"""What can be tried within seconds: the all-in-one archive, the forge's workflow, what a failing tool says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from release import images, tools
from release.archives import write_layout
from release.project import ROOT, Project, ReleaseError, source_date_epoch, version

[WORKFLOW] = (ROOT / ".github" / "workflows").iterdir()
NAMES = ("docker.io/library/registry:3.1.1", "docker.io/library/registry-spooler:0.1.0")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def make_layout(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Write images without layers, one for each name."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    manifests = []
    for name in names:
        config = add_blob(folder, CONFIG, {"architecture": "amd64", "os": "linux", "author": name})
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
        named = {"annotations": {"org.opencontainers.image.ref.name": name}}
        manifests.append(add_blob(folder, MANIFEST, manifest) | named)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return folder


def add_blob(folder: Path, media_type: str, document: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(document).encode()
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def test_each_image_has_its_full_name_for_every_reader(tmp_path: Path) -> None:
    archive = tmp_path / "all.tar"
    write_layout(make_layout(tmp_path / "layout"), archive, 1_700_000_000)

    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json") or pytest.fail("no index"))
        assert {1_700_000_000} == {entry.mtime for entry in tar}
    assert sorted(NAMES) == [image["annotations"]["io.containerd.image.name"] for image in index["manifests"]]
    for name in NAMES:
        shown = subprocess.run(
            ["skopeo", "inspect", "--config", f"oci-archive:{archive}:{name}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert name == json.loads(shown.stdout)["author"]


def test_the_order_of_the_images_does_not_matter(tmp_path: Path) -> None:
    written = []
    for number, names in enumerate((NAMES, NAMES[::-1])):
        archive = tmp_path / f"{number}.tar"
        write_layout(make_layout(tmp_path / f"layout{number}", names), archive, 1)
        written.append(archive.read_bytes())

    assert written[0] == written[1]


def test_the_registry_is_the_one_that_the_manifests_pin() -> None:
    pinned = images.pinned_registry()

    assert images.NAMES["registry"] == pinned["newName"]
    assert pinned["digest"].startswith("sha256:")


def test_the_time_is_the_commits_or_the_one_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "17")
    assert 17 == source_date_epoch()


def test_a_tool_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"exit code 3\nout\nerr"):
        Project(version(), 1, tmp_path).run("sh", "-c", "echo out; echo err >&2; exit 3")


def test_the_workflow_runs_gate_and_release() -> None:
    jobs: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}

    assert ["./dev test"] == commands["gate"]
    assert "./dev release" in commands["make"][-1]
    assert ("gate", "make") == (jobs["make"]["needs"], jobs["publish"]["needs"])


@pytest.mark.timeout(600)  # the first time it is built
def test_actionlint_accepts_the_workflow() -> None:
    actionlint = tools.find("actionlint")
    if actionlint is None:
        # Debian has no actionlint, and a machine for the gate need not have Go; pytest names what was skipped.
        pytest.skip("there is neither actionlint nor Go, which would build it")

    done = subprocess.run([actionlint, "-no-color", WORKFLOW], capture_output=True, text=True, check=False)
    assert ("", 0) == (done.stdout + done.stderr, done.returncode)
