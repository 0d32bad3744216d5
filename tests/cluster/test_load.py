"""Images go into a node's own store through a short-lived pod, and nothing of it stays behind."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from cluster.image_archives import write_archive
from cluster.installation import Installation, Outcome

NAMESPACE = "loading"


def _load(installation: Installation, folder: Path, *arguments: str, user: str = "admin") -> Outcome:
    return installation.spool("load", *arguments, folder=folder, user=user, namespace=NAMESPACE)


def _stored(installation: Installation) -> str:
    return installation.cluster.nodes[0].run("ctr", "--namespace=k8s.io", "images", "list").stdout


def test_a_file_is_loaded_into_the_node(installation: Installation, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "app.tar", layers=2)
    with tarfile.open(archive) as tar:
        found = tar.extractfile("manifest.json")
        assert found is not None
        (name,) = json.load(found)[0]["RepoTags"]
    installation.cluster.kubectl("create", "namespace", NAMESPACE)

    loaded = _load(installation, tmp_path, "app.tar")

    assert 0 == loaded.code, loaded
    assert name == loaded.stdout.strip()
    assert name in _stored(installation)
    assert "" == installation.cluster.kubectl("get", "pods", f"--namespace={NAMESPACE}", "--output=name")


def test_where_no_privileged_pod_may_run_it_says_what_to_type(installation: Installation, tmp_path: Path) -> None:
    write_archive(tmp_path / "app.tar")
    restricted = "pod-security.kubernetes.io/enforce=restricted"
    installation.cluster.kubectl("label", "namespace", NAMESPACE, restricted)

    refused = _load(installation, tmp_path, "app.tar")

    assert 1 == refused.code, refused
    assert "PodSecurity" in refused.stderr
    assert "ctr -n k8s.io images import FILE" in refused.stderr


def test_who_may_only_push_may_not_load(installation: Installation, tmp_path: Path) -> None:
    write_archive(tmp_path / "app.tar")

    refused = _load(installation, tmp_path, "app.tar", user="pusher")

    assert 4 == refused.code, refused
    assert "kubectl auth can-i list nodes" in refused.stderr
