from __future__ import annotations

import socket

import pytest

from registry_spooler.health.server import Hosts
from support.health.health_port import HealthPort
from support.health.scripted_state import ScriptedState, waiting


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8086",
        "10.0.0.7:80",
        "[::1]:8086",
        "[fd00::1]",
        "localhost:9999",
        "LOCALHOST.",
        "spooler.localhost",
        "spooler",
        "spooler.registry.svc",
        "spooler.registry.svc.cluster.local:8086",
        socket.gethostname(),
        "spool.example.org",
        "Spool.Example.org.:443",
    ],
)
def test_names_that_are_ours(host: str) -> None:
    assert Hosts(["spool.example.org"]).allow([host])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8086",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "spooler.registry.svc.evil.example",
        "evilsvc.example",
        "example.org",
        "[::1].evil.example",
        "user@127.0.0.1.x",
    ],
)
def test_names_that_are_a_strangers(host: str) -> None:
    assert not Hosts(["spool.example.org"]).allow([host])


def test_each_of_several_hosts_has_to_be_ours() -> None:
    assert Hosts().allow([])
    assert not Hosts().allow(["localhost", "evil.example"])


async def test_a_web_page_that_rebinds_its_name_reads_no_file_names(port: HealthPort, state: ScriptedState) -> None:
    state.waiting_files = [waiting("secret-project.tar", None)]
    for path in ("/status", "/"):
        async with port.session.get(port.url + path, headers={"Host": "evil.example:8086"}) as answer:
            text = await answer.text()
        assert 421 == answer.status
        assert {"error": "not answered under this host name; ask by address, or set --health-host"} == (
            await answer.json()
        )
        assert "secret" not in text
    for path in ("/live", "/ready", "/healthz", "/metrics"):
        async with port.session.get(port.url + path, headers={"Host": "probes.example"}) as answer:
            assert 200 == answer.status, path
    async with port.session.get(port.url + "/status", headers={"Host": "spooler.registry.svc:8086"}) as answer:
        assert 200 == answer.status
