"""What `kubectl spool doctor` does when something hangs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry_spooler import __version__
from registry_spooler.cli.kubectl import doctor
from registry_spooler.cli.kubectl.doctor import Finding, _Examination
from registry_spooler.cli.kubectl.target import ClusterTarget
from support.cluster.apiserver import ApiServer

_POD = """#!/bin/sh
case "$*" in
*--version*) echo "registry-client, version {version}"; exit ;;
*{hangs}*) exec sleep 60 ;;
*status*) answer='{status}' ;;
*list*) echo '{{"error": "it said 401", "kind": "AccessDenied", "code": 4}}' >&2; exit 4 ;;
esac
printf %s "$answer"
printf '{{"done": true, "stdout_bytes": %s, "code": 0}}\\n' "${{#answer}}" >&2
"""


_STATUS = {
    "version": "1",
    "ready": True,
    "checks": {},
    "registry": {"address": "http://localhost:5000", "up": True},
    "queue": {"depth": 1, "running": 0, "waiting": 1, "deferred": 0},
    "spool": {"failed_files": 2},
}


@pytest.fixture
def examination(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[_Examination, list[Finding]]:
    monkeypatch.setattr(doctor, "DOCTOR_SECONDS", 4.0)
    found: list[Finding] = []
    return _Examination(ClusterTarget(kubeconfig=kubeconfig), found.append), found


def _install(api: ApiServer, folder: Path, *, hangs: str) -> None:
    program = folder / "pod" / "registry-client"
    program.parent.mkdir()
    program.write_text(_POD.format(version=__version__, hangs=hangs, status=json.dumps(_STATUS)))
    program.chmod(0o755)
    api.environment["PATH"] = f"{program.parent}:/usr/bin:/bin"


async def test_a_registry_that_hangs_is_told_and_the_rest_is_found_before(
    api: ApiServer, examination: tuple[_Examination, list[Finding]], tmp_path: Path
) -> None:
    _install(api, tmp_path, hangs="list")
    running, found = examination
    await running.run()
    assert ["login", "pods", "exec", "versions"] == [finding.check for finding in found[:4]]
    assert {"spooler", "failed files", "logs"} == {finding.check for finding in found[4:-1]}
    assert ("registry", False) == (found[-1].check, found[-1].ok)
    assert found[-1].said.startswith("no answer within 4 seconds; see the log of the registry's container")
    assert ["registry"] == [finding.check for finding in found if not finding.ok]


async def test_a_pod_that_hangs_is_the_first_trouble_and_the_last_finding(
    api: ApiServer, examination: tuple[_Examination, list[Finding]], tmp_path: Path
) -> None:
    _install(api, tmp_path, hangs="version")
    (tmp_path / "pod" / "registry-client").write_text("#!/bin/sh\nexec sleep 60\n")
    running, found = examination
    await running.run()
    assert ["login", "pods", "exec"] == [finding.check for finding in found]
    assert "no answer within 4 seconds; try `kubectl exec`" in found[-1].line


async def test_a_login_that_may_not_list_repositories_is_no_trouble(
    api: ApiServer, examination: tuple[_Examination, list[Finding]], tmp_path: Path
) -> None:
    _install(api, tmp_path, hangs="nothing")
    running, found = examination
    await running.run()
    assert all(finding.ok for finding in found)
    lines = {finding.line for finding in found}
    assert "note     registry: it does not let the spooler's login list its repositories: it said 401" in lines
    assert "note     failed files: 2; `kubectl spool failed` lists them with their reasons" in lines
    assert "ok       spooler: ready, 1 file in its queue" in lines
