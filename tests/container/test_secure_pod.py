"""The rendered `secure`, played by podman: TLS, a password, and a spooler that finds its way in."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import bcrypt
import pytest
import trustme
import yaml

from support.containers.machine import ROOT, Machine
from support.containers.pod import Pod

USER, PASSWORD = "spooler", "s3cret and long"

pytestmark = pytest.mark.timeout(600)  # the first of them has the images made


def secrets() -> dict[str, dict[str, str]]:
    """What the README has people make."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "registry")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode().replace("$2b$", "$2y$")
    return {
        "registry-tls": {
            "tls.crt": "".join(part.bytes().decode() for part in certificate.cert_chain_pems),
            "tls.key": certificate.private_key_pem.bytes().decode(),
            "ca.crt": authority.cert_pem.bytes().decode(),
        },
        "registry-htpasswd": {"htpasswd": f"{USER}:{hashed}\n"},
        "registry-spooler-credentials": {"username": USER, "password": PASSWORD},
    }


def for_podman(manifest: str) -> str:
    """The same, but for what podman cannot do: a secret as a variable, the group of `fsGroup` for the files of one.

    Nor can podman 4.3 read a secret that does not say `optional`.
    """
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(manifest))
    for document in documents:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            for volume in pod["volumes"]:
                if "secret" in volume:
                    volume["secret"] |= {"optional": False, "defaultMode": 0o444}
            for variable in (
                variable
                for kind in ("initContainers", "containers")
                for container in pod[kind]
                for variable in container["env"]
            ):
                if variable.pop("valueFrom", None):
                    variable["value"] = USER
    return yaml.safe_dump_all(documents)


@pytest.fixture(scope="module")
def pod(machine: Machine) -> Iterator[Pod]:
    for name, data in secrets().items():
        values = {key: b64encode(value.encode()).decode() for key, value in data.items()}
        # podman 4.3 takes the values as they are, where Kubernetes, and podman from 4.4 on, decode them.
        shown = data if machine.podman_version < (4, 4) else values
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": shown}
        machine.podman("secret", "create", name, "-", text=yaml.safe_dump(secret))
    rendered = machine.run("kubectl", "kustomize", str(ROOT / "manifests" / "secure"))
    with Pod(machine, for_podman(rendered)) as running:
        yield running


def test_an_archive_goes_through_tls_and_a_password(pod: Pod) -> None:
    for container, kind in pod.probes:
        pod.probe(container, kind)

    assert "team/app:1.0" == pod.push("team\\app:1.0.tar")["reference"]

    assert 400 == pod.get(5000, "/v2/")[0]  # plain HTTP, to a server that speaks TLS


def test_the_password_shows_nowhere(pod: Pod, machine: Machine) -> None:
    shown = [pod.get(8086, path)[1] for path in ("/status", "/metrics", "/ready")]
    shown.append(machine.podman("logs", pod.spooler))
    shown.append(pod.shell("cat /proc/1/cmdline /proc/1/environ"))
    for text in shown:
        assert PASSWORD not in text
