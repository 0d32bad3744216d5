"""One cluster for all tests here, with the default manifests in it; images and cluster are made side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.installation import Installation
from localcluster import programs
from localcluster.cluster import Cluster
from support.containers.machine import REGISTRY, SPOOLER, save_images

SET_UP_SECONDS = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test the time that the set-up takes on a busy machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(SET_UP_SECONDS))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose node holds the images of the spooler and of Debian's registry, and can pull nothing."""
    running = Cluster("tests")
    running.down()  # one that a killed run has left
    archive = tmp_path_factory.mktemp("images") / "images.tar"
    found = programs.at_hand()
    assert found is not None, f"no programs of Kubernetes: set {programs.VARIABLE}"
    try:
        with ThreadPoolExecutor() as side_by_side:
            steps = (side_by_side.submit(running.up, found), side_by_side.submit(save_images, archive))
            for step in steps:
                step.result()
        running.load(archive)
        yield running
    finally:
        running.down()


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Installation:
    """What `kubectl spool install` makes of it, ready."""
    installed = Installation(cluster)
    installed.install("--image", SPOOLER, "--registry-image", REGISTRY)
    return installed
