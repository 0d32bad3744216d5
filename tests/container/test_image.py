"""The image as it is built and run: what it holds, what it may, how soon it is there and how soon it is gone."""

from __future__ import annotations

import time

import orjson
import pytest

import registry_spooler
from support.containers.machine import BASE, ROOT, SPOOLER, Machine

SIZE_OVER_BASE_MAX_BYTES = 90_000_000
CONFINED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--memory=512m",
)

pytestmark = pytest.mark.timeout(600)  # the first of them has the images made


@pytest.fixture(scope="module")
def container(machine: Machine) -> str:
    """A running one, confined as the manifests confine it."""
    name = "confined"
    machine.podman(
        "run", "--detach", f"--name={name}", *CONFINED, "--volume=confined:/spool", SPOOLER, "--log-format=json"
    )
    return name


def test_it_adds_less_than_90_mb_to_its_base(machine: Machine) -> None:
    assert machine.inspect(SPOOLER)["Size"] - machine.inspect(BASE)["Size"] < SIZE_OVER_BASE_MAX_BYTES


def test_its_labels_and_settings(machine: Machine) -> None:
    found = machine.inspect(SPOOLER)
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in found["Labels"].items()}

    assert {
        "title": "Registry Spooler",
        "licenses": "Apache-2.0",
        "version": registry_spooler.__version__,
        "base.name": BASE,
    }.items() <= labels.items()
    assert {"description", "revision", "created"} <= labels.keys()
    assert "65532:65532" == found["Config"]["User"]
    assert ["registry-spooler"] == found["Config"]["Entrypoint"]
    assert {"8086/tcp": {}} == found["Config"]["ExposedPorts"]
    assert "SIGTERM" == found["Config"]["StopSignal"]


def test_nothing_of_the_build_machine_is_in_it(machine: Machine) -> None:
    listed = machine.podman(
        "run",
        "--rm",
        "--network=none",
        "--entrypoint=sh",
        SPOOLER,
        "-c",
        "ls -A /build /run/secrets /etc/pip.conf 2>&1; env",
    )
    assert 3 == listed.count("No such file or directory")
    assert "PIP_" not in listed


def test_the_bill_of_materials_lists_what_is_installed(machine: Machine) -> None:
    bill = orjson.loads(
        machine.podman(
            "run", "--rm", "--network=none", "--entrypoint=cat", SPOOLER, "/opt/registry-spooler/sbom.cdx.json"
        )
    )

    assert ("CycloneDX", "1.6") == (bill["bomFormat"], bill["specVersion"])
    assert "registry-spooler" == bill["metadata"]["component"]["name"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "container" / "requirements.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    listed = {component["name"].lower().replace("_", "-").replace(".", "-") for component in bill["components"]}
    assert {name.replace(".", "-") for name in pinned} | {"cpython"} == listed
    references = {component["bom-ref"] for component in (*bill["components"], bill["metadata"]["component"])}
    for dependency in bill["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= references


def test_it_runs_confined(machine: Machine, container: str) -> None:
    status = machine.podman("exec", container, "cat", "/proc/1/status")

    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert ["65532"] * 4 == fields["Uid"].split()
    assert ["65532"] * 4 == fields["Gid"].split()
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert 0 == int(fields[kind], 16)
    assert ("1", "2") == (fields["NoNewPrivs"], fields["Seccomp"])
    assert "Read-only file system" in machine.podman("exec", container, "sh", "-c", "touch /x 2>&1 || true")


def test_it_has_what_kubectl_cp_needs(machine: Machine, container: str) -> None:
    found = machine.podman("exec", container, "sh", "-c", "for name in tar sh mv touch; do command -v $name; done")
    assert 4 == len(found.splitlines())
    assert "registry-client" in machine.podman("exec", container, "registry-client", "--version")


def test_it_is_alive_and_stops_within_its_grace_as_process_1(machine: Machine) -> None:
    started = time.monotonic()
    machine.podman("run", "--detach", "--name=brief", *CONFINED, "--volume=brief:/spool", SPOOLER)
    machine.podman("exec", "brief", "python3", "-c", WAIT_FOR_LIVE)
    alive = time.monotonic()
    assert "registry-spooler" in machine.podman("exec", "brief", "cat", "/proc/1/cmdline")

    machine.podman("stop", "--time=20", "brief")

    stopped = time.monotonic()
    assert "0" == machine.podman("inspect", "--format={{.State.ExitCode}}", "brief").strip()
    assert stopped - alive < 5
    assert alive - started < 30


WAIT_FOR_LIVE = """
import time, urllib.error, urllib.request
for _ in range(300):
    try:
        urllib.request.urlopen("http://127.0.0.1:8086/live", timeout=5).read()
        break
    except OSError:
        time.sleep(0.05)
else:
    raise SystemExit("never alive")
"""
