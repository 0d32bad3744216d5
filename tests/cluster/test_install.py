"""The default manifests in a real cluster: ready, pushed to in both ways, and kept when the pod is replaced."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.image_archives import diff_ids, write_archive
from cluster.installation import Installation, statuses


def test_the_default_installation_becomes_ready(installation: Installation) -> None:
    (pod,) = installation.pods()

    assert "True" == {found["type"]: found["status"] for found in pod["status"]["conditions"]}["Ready"]
    started = {status["name"]: status["started"] for status in statuses(pod)}
    assert {"registry": True, "registry-reader": True, "spooler": True} == started
    claims = json.loads(installation.kubectl("get", "persistentvolumeclaims", "--output=json"))["items"]
    assert ["Bound", "Bound"] == [claim["status"]["phase"] for claim in claims]


def test_what_the_pusher_pushes_is_in_the_registry(installation: Installation, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "app.tar", layers=2)

    pushed = installation.spool("push", "app.tar", "team/app:v1", folder=tmp_path)

    assert 0 == pushed.code, pushed
    digest, manifest = installation.manifest("team/app", "v1")
    assert f"127.0.0.1:5001/team/app:v1@{digest}" == pushed.stdout.strip()
    assert 2 == len(manifest["layers"])
    assert 0 == installation.spool("pull", "team/app:v1", "-o", "back.tar", folder=tmp_path).code
    assert diff_ids(archive) == diff_ids(tmp_path / "back.tar")


def test_who_is_no_pusher_may_not_push(installation: Installation, tmp_path: Path) -> None:
    write_archive(tmp_path / "app.tar")

    refused = installation.spool("push", "app.tar", "team/stranger:v1", folder=tmp_path, user="stranger")

    assert 4 == refused.code, refused
    assert "403" in refused.stderr, refused
    assert "team/stranger" not in installation.spool("list", folder=tmp_path).stdout.split()


def test_what_kubectl_copies_and_renames_is_pushed(installation: Installation, tmp_path: Path) -> None:
    write_archive(tmp_path / "app.tar")
    pod = installation.pod

    installation.as_pusher("cp", "app.tar", f"{pod}:/spool/app.tar~", folder=tmp_path)
    installation.as_pusher("exec", pod, "--", "mv", "/spool/app.tar~", "/spool/team\\copied:v1.tar", folder=tmp_path)
    waited = installation.as_pusher(
        "exec", pod, "--", "registry-client", "wait", "team\\copied:v1.tar", folder=tmp_path
    )

    receipt = json.loads(waited)
    assert "team/copied:v1" == receipt["reference"]
    assert receipt["digest"] == installation.manifest("team/copied", "v1")[0]


def test_images_and_files_outlive_the_pod(installation: Installation, tmp_path: Path) -> None:
    write_archive(tmp_path / "app.tar")
    kept = installation.spool("push", "app.tar", "team/kept:v1", folder=tmp_path)
    pod = installation.pod
    installation.as_pusher("cp", "app.tar", f"{pod}:/spool/half.tar~", folder=tmp_path)
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    installation.as_pusher("cp", "bad.tar", f"{pod}:/spool/bad.tar~", folder=tmp_path)
    installation.as_pusher("exec", pod, "--", "mv", "/spool/bad.tar~", "/spool/bad.tar", folder=tmp_path)
    assert 1 == installation.spool("wait", "bad.tar", folder=tmp_path).code

    installation.kubectl("delete", "pod", pod, "--grace-period=1")
    installation.wait_until_ready()

    assert pod != installation.pod
    assert kept.digest == installation.manifest("team/kept", "v1")[0]
    listed = installation.as_pusher("exec", installation.pod, "--", "ls", "/spool", "/spool/.failed", folder=tmp_path)
    assert {"half.tar~", "bad.tar", "bad.tar.error.json"} <= set(listed.split())
