"""The rendered base, played by podman: confined as Kubernetes would, probes answering, an archive through it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from machine import REGISTRY, ROOT, Machine
from pod import Pod

pytestmark = pytest.mark.timeout(600)  # the first of them has the images made


@pytest.fixture(scope="module")
def pod(machine: Machine) -> Iterator[Pod]:
    rendered = machine.run("kubectl", "kustomize", str(ROOT / "manifests" / "base"))
    assert f"image: {REGISTRY}\n" in rendered
    with Pod(machine, rendered) as running:
        yield running


def test_all_probes_of_the_manifest_answer(pod: Pod) -> None:
    for container in ("registry", "spooler"):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            pod.probe(container, kind)


def test_an_archive_copied_into_the_container_is_pushed(pod: Pod) -> None:
    pod.probe("spooler", "readinessProbe")

    receipt = pod.push("team\\app:1.0.tar")

    assert "team/app:1.0" == receipt["reference"]
    status, _ = pod.get(5000, f"/v2/team/app/manifests/{receipt['digest']}")
    assert 200 == status
    assert '"tags":["1.0"]' in pod.get(5000, "/v2/team/app/tags/list")[1]
    assert "" == pod.shell("ls /spool")
    assert 'registry_spooler_jobs_total{action="push",outcome="done"} 1.0' in pod.get(8086, "/metrics")[1]


def test_an_image_is_deleted_by_a_name(pod: Pod) -> None:
    pod.shell("touch '/spool/team\\app:1.0!'")
    pod.shell("registry-client wait 'team\\app:1.0!'")

    assert 404 == pod.get(5000, "/v2/team/app/manifests/1.0")[0]


def test_both_run_as_the_manifest_confines_them(pod: Pod, machine: Machine) -> None:
    for container in ("registry", "spooler"):
        status = machine.podman("exec", f"{pod.name}-{container}", "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert ["65532"] * 4 == fields["Uid"].split()
        assert 0 == int(fields["CapBnd"], 16)
        assert "1" == fields["NoNewPrivs"]
        found = json.loads(machine.podman("inspect", f"{pod.name}-{container}"))[0]
        assert found["HostConfig"]["ReadonlyRootfs"]
