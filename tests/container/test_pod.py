"""The rendered base, played by podman: confined as Kubernetes would, probes answering, an archive through it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.containers.machine import ROOT, Machine
from support.containers.pod import PINNED_REGISTRY, Pod

READER = 5001
"""The port that everybody but the spooler is served at."""

pytestmark = pytest.mark.timeout(600)  # the first of them has the images made


@pytest.fixture(scope="module")
def pod(machine: Machine) -> Iterator[Pod]:
    rendered = machine.run("kubectl", "kustomize", str(ROOT / "manifests" / "base"))
    assert PINNED_REGISTRY.search(rendered)
    with Pod(machine, rendered) as running:
        yield running


def test_all_probes_of_the_manifest_answer(pod: Pod) -> None:
    assert {"registry-reader", "spooler"} == {container for container, _ in pod.probes}
    for container, kind in pod.probes:
        pod.probe(container, kind)


def test_an_archive_copied_into_the_container_is_pushed(pod: Pod) -> None:
    pod.probe("spooler", "readinessProbe")

    receipt = pod.push("team\\app:1.0.tar")

    assert "team/app:1.0" == receipt["reference"]
    for port in (5000, READER):
        assert 200 == pod.get(port, f"/v2/team/app/manifests/{receipt['digest']}")[0]
        assert '"tags":["1.0"]' in pod.get(port, "/v2/team/app/tags/list")[1]
    assert "" == pod.shell("ls /spool")
    assert 'registry_spooler_jobs_total{action="push",outcome="done"} 1.0' in pod.get(8086, "/metrics")[1]


def test_an_image_is_deleted_by_a_name(pod: Pod) -> None:
    pod.shell("touch '/spool/team\\app:1.0!'")
    pod.shell("registry-client wait 'team\\app:1.0!'")

    assert [404, 404] == [pod.get(port, "/v2/team/app/manifests/1.0")[0] for port in (5000, READER)]


def test_what_others_pull_from_takes_no_push_and_no_deletion(pod: Pod) -> None:
    receipt = pod.push("kept.tar")

    for method, path in (
        ("POST", "/v2/team/evil/blobs/uploads/"),
        ("PUT", "/v2/kept/manifests/latest"),
        ("DELETE", f"/v2/kept/manifests/{receipt['digest']}"),
    ):
        assert 405 == pod.ask(READER, path, method)[0]
    assert 200 == pod.get(READER, "/v2/kept/manifests/latest")[0]


def test_the_registry_that_takes_pushes_is_reached_from_within_the_pod_alone(pod: Pod) -> None:
    pod.get(READER, "/v2/")  # it has started
    listening = pod.listening()

    assert {"127.0.0.1"} == listening[5000]
    assert {"::"} == listening[READER]


def test_images_and_waiting_files_outlive_the_pod(machine: Machine, pod: Pod) -> None:
    receipt = pod.push("lasting.tar")
    pod.shell("cat > /spool/upload.tar~", b"half of it")

    pod.replace()

    pod.probe("spooler", "readinessProbe")
    assert 200 == pod.get(READER, f"/v2/lasting/manifests/{receipt['digest']}")[0]
    assert "upload.tar~\n" == pod.shell("ls /spool")


def test_both_run_as_the_manifest_confines_them(pod: Pod, machine: Machine) -> None:
    for container in ("registry", "registry-reader", "spooler"):
        status = machine.podman("exec", f"{pod.name}-{container}", "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert ["65532"] * 4 == fields["Uid"].split()
        assert 0 == int(fields["CapBnd"], 16)
        assert "1" == fields["NoNewPrivs"]
        found = json.loads(machine.podman("inspect", f"{pod.name}-{container}"))[0]
        assert found["HostConfig"]["ReadonlyRootfs"]
