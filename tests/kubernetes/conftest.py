"""What the tests of the way into the cluster share: an API server of one pod, and a network in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.config import log_in
from registry_spooler.kubernetes.pods import Container
from support.cluster.apiserver import ApiServer, write_certificates
from support.cluster.wire import Wire


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def api(spool: Path, certificates: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer(spool, certificates) as server:
        yield server


@pytest.fixture
async def wire(api: ApiServer) -> AsyncIterator[Wire]:
    async with Wire(api.port) as proxy:
        yield proxy


@pytest.fixture
def kubeconfig(api: ApiServer, wire: Wire, tmp_path: Path) -> Path:
    return api.kubeconfig(tmp_path / "kubeconfig", wire.port)


@pytest.fixture
async def cluster(kubeconfig: Path) -> AsyncIterator[Cluster]:
    async with Cluster(await log_in(kubeconfig=kubeconfig)) as opened:
        yield opened


@pytest.fixture
def container(api: ApiServer) -> Container:
    return Container(api.pods[0], "spooler")
